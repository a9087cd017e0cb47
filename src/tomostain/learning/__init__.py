"""From pairs to a Stainer: ranges, patches, networks, losses, methods, the training loop, metrics and baselines."""

import os

# Threads that wait for each other must sleep, not spin: where the cores are shared with anything else, torch's OpenMP
# otherwise takes ten to fifty times as long. It is read when torch is loaded, so it is set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
