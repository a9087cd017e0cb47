"""Whether the demo's stainer is ahead of the colour table in the mean of held-out specimens, for several seeds.

python benchmarks/demo_seeds.py OUT [SEED ...] runs `tomostain demo` for each seed (default 0 1 2) and prints the table.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

from _results import Figure, save

METRICS = ("ssim", "psnr", "lpips")


def main(out: Path, seeds: list[int]) -> int:
    print(f"{platform.machine()}, {os.cpu_count()} cores; better in all three: higher SSIM and PSNR, lower LPIPS")
    print(f"{'seed':>4} {'method':14}" + "".join(f"{name:>9}" for name in METRICS) + f"{'ahead':>13}{'minutes':>9}")
    all_beaten, figures = True, []
    for seed in seeds:
        begun = time.monotonic()
        folder = out / f"seed_{seed}"
        command = [sys.executable, "-m", "tomostain", "demo", str(folder), "--seed", str(seed)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        minutes = (time.monotonic() - begun) / 60
        summary = json.loads((folder / "evaluation" / "summary.json").read_text())
        beaten = {name: summary["gains"]["colour table"][name]["mean"] > 0 for name in METRICS}
        all_beaten &= all(beaten[name] for name in METRICS)
        for method, scores in summary["methods"].items():
            row = f"{seed:>4} {method:14}" + "".join(f"{scores[name]['mean']:9.4f}" for name in METRICS)
            if method == "stainer":
                row += f"{sum(beaten[name] for name in METRICS):>9} of 3{minutes:9.1f}"
            print(row)
            means = " / ".join(f"{scores[name]['mean']:.3f}" for name in METRICS)
            figures.append(Figure(f"seed {seed}, SSIM / PSNR / LPIPS, {method}", means))
        skill = " / ".join(f"{summary['skill'][name]:.2f}" for name in METRICS)
        figures.append(Figure(f"seed {seed}, skill in SSIM / PSNR / LPIPS", skill, target="0.30 / 0.50 / 0.50"))
        print(f"{seed:>4} skill {skill}")
        figures.append(Figure(f"seed {seed}, time", f"{minutes:.1f} min"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"largest peak memory of a demo: {peak:.2f} GiB; "
        f"the stainer is {'' if all_beaten else 'NOT '}ahead of the table everywhere"
    )
    save("demo_seeds", figures, peak_gib=peak)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [int(text) for text in sys.argv[2:]] or [0, 1, 2]))
