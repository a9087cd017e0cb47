"""On a cluster the same blocks give the same volume, whoever dies on the way."""

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.io.volumes import read_volume
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.staining import cluster
from tomostain.staining.blocks import choose_cut, plan_blocks
from tomostain.staining.cluster import Job, processes_of, stain_on_cluster, workers_of
from tomostain.staining.journal import Journal
from tomostain.staining.run import Run, begin, go_on, journal_path
from tomostain.staining.slurm import Slurm, batch_script, read_slurm
from tomostain.staining.work import Work
from tomostain.staining.workers import QUIET, THREADS, as_environment


@pytest.fixture
def job(tmp_path, rng):
    """A volume of 12 blocks for a small stainer."""
    spec = NetSpec("resnet", {"width": 4, "depth": 1})
    model = Stainer(build_generator(spec, 1, 3).eval(), spec, CTRange(0.0, 2.0), "giemsa", 5.0)
    model.save(tmp_path / "stainer")
    values = rng.random((66, 80, 130), dtype=np.float32)
    plan = plan_blocks(choose_cut(values.shape), planes=1, halo_px=model.halo_px, align_px=model.stride_px)
    writer, journal = begin(tmp_path / "v.ome.zarr", plan, {})
    work = Work(Volume(values, Grid(values.shape, (5, 5, 5)), "ct"), plan, writer)
    with Run(plan, writer, journal) as run:
        yield Job(work, tmp_path / "stainer", Stainer.load(tmp_path / "stainer").sha256, "torch", "cpu", 1), run


def stained_whole(job):
    model = Stainer.load(job.stainer)
    return np.stack([model(plane[None]) for plane in job.work.ct[:, :, :]])


@pytest.mark.usefixtures("small_shards")
def test_workers_killed_at_random_lose_and_repeat_nothing_that_was_noted(job, monkeypatch):
    job, run = job
    done, connect, killed = threading.Event(), cluster.connected, []

    def haunted(cluster):
        inner = connect(cluster)

        class Context:
            def __enter__(self):
                client = inner.__enter__()
                threading.Thread(target=kill, args=(client.cluster,), daemon=True).start()
                return client

            def __exit__(self, *error):
                done.set()
                return inner.__exit__(*error)

        return Context()

    def kill(cluster):
        chance = random.Random(5)
        for noted in (1, 5, 9):  # in the midst of the work: so many of its 12 blocks and the pyramid's shards are noted
            while len(run.journal.entries) < noted and not done.wait(0.002):
                pass
            pids = [worker.pid for worker in list(cluster.workers.values()) if worker.pid]
            if pids and not done.is_set():
                killed.append(chance.choice(pids))
                os.kill(killed[-1], signal.SIGKILL)

    monkeypatch.setattr("tomostain.staining.cluster.connected", haunted)
    stain_on_cluster(job, run, "local:2")
    done.set()
    job.work.writer.declare(job.work.ct.grid)
    assert len(killed) >= 2
    np.testing.assert_array_equal(read_volume(job.work.writer.path)[:, :, :], stained_whole(job))
    with Journal.resume(journal_path(job.work.writer.path)) as journal:
        noted = [(entry["level"], *entry["at"]) for entry in journal.entries]
    assert len(noted) == len(set(noted))
    assert sum(level == 0 for level, *_ in noted) == len(job.work.plan.blocks()) == 12


DEADLY = """
import os, signal
import numpy as np

class Deadly:
    \"\"\"An array whose reader is ended by the kernel, as for lack of memory, while a file exists.\"\"\"

    def __init__(self, array, flag):
        self.array, self.flag, self.shape, self.dtype = array, flag, array.shape, array.dtype

    def __getitem__(self, window):
        if window[0].stop > 65 and window[2].stop > 128 and os.path.exists(self.flag):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.array[window]
"""


@pytest.mark.usefixtures("small_shards")
def test_a_block_that_kills_its_workers_is_named_and_loses_nothing(job, tmp_path, monkeypatch):
    job, run = job
    expected = stained_whole(job)
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(cluster, "ATTEMPTS", 1)
    from deadly import Deadly

    flag = tmp_path / "too_little_memory"
    flag.touch()
    ct = replace(job.work.ct, array=Deadly(job.work.ct.array, str(flag)))
    job = replace(job, work=replace(job.work, ct=ct))
    with pytest.raises(MemoryError, match=r"workers died repeatedly on block .* lack of memory: .*--resume"):
        stain_on_cluster(job, run, "local:2")
    run.journal.close()
    flag.unlink()
    journal = Journal.resume(journal_path(job.work.writer.path))
    with Run(job.work.plan, go_on(job.work.writer.path, job.work.plan), journal) as again:
        assert 0 < len(again.blocks) < 12
        stain_on_cluster(job, again, "local:1")
    job.work.writer.declare(job.work.ct.grid)
    np.testing.assert_array_equal(read_volume(job.work.writer.path)[:, :, :], expected)


@pytest.mark.usefixtures("small_shards")
def test_a_fault_on_a_worker_is_reported_and_what_was_done_is_kept(job):
    job, run = job
    values = job.work.ct.array
    values[65, 70, 100] = np.inf
    with pytest.raises(ValueError, match=r"NaN or infinite values near voxel \(65, 70, 100\).*--fill"):
        stain_on_cluster(replace(job), run, "local:1")
    assert run.journal.entries


FOREIGN = """
from torch import nn

class Plain(nn.Module):
    halo_px, stride_px, tile_exact = 4, 4, True

    def __init__(self, inputs, outputs, *, size=3):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, padding_mode="reflect")

    def forward(self, image):
        return self.conv(image).tanh()
"""


@pytest.mark.usefixtures("small_shards")
def test_a_network_of_another_package_stains_on_workers_that_trust_it(job, tmp_path, monkeypatch):
    job, run = job
    (tmp_path / "elsewhere.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    spec = NetSpec("elsewhere:Plain", {"size": 5})
    net = build_generator(spec, 1, 3).eval()
    Stainer(net, spec, CTRange(0.0, 2.0), "giemsa", 5.0).save(tmp_path / "foreign")
    model = Stainer.load(tmp_path / "foreign", trust=True)
    foreign = replace(job, stainer=tmp_path / "foreign", sha256=model.sha256)
    with pytest.raises(ValueError, match=r"elsewhere:Plain.*trust"):
        stain_on_cluster(foreign, run, "local:1")
    stain_on_cluster(replace(foreign, trust=True), run, "local:1")
    job.work.writer.declare(job.work.ct.grid)
    expected = np.stack([model(plane[None]) for plane in job.work.ct[:, :, :]])
    assert expected.std() > 5
    np.testing.assert_array_equal(read_volume(job.work.writer.path)[:, :, :], expected)


def test_a_stainer_that_was_replaced_is_refused_by_a_worker(job):
    job, _ = job
    with pytest.raises(ValueError, match=r"stainer is not the stainer that this run began with.*--resume"):
        cluster.do(pickle.dumps(replace(job, sha256="0" * 64)), job.work.plan.blocks()[0])


@pytest.mark.parametrize(
    ("text", "workers", "processes"),
    [(None, 1, 1), ("local:3", 3, 4), ("tcp://node:8786", 1, 1), ("slurm.yaml", 1, 1)],
)
def test_kinds_of_clusters_are_distinguished(text, workers, processes):
    assert (workers_of(text), processes_of(text)) == (workers, processes)


@pytest.mark.parametrize("text", ["local:0", "local", "many", "local:-1"])
def test_what_is_no_cluster_is_refused(text):
    with pytest.raises(ValueError, match=r"none of local:N, tcp://scheduler:8786, slurm\.yaml"):
        workers_of(text)


def test_the_slurm_script_asks_for_what_the_file_says(tmp_path):
    file = tmp_path / "slurm.yaml"
    file.write_text(
        "workers: 64\ncpus: 8\nmemory_gib: 16\ngpus: 1\npartition: gpu\nsetup: [module load cuda]\npython: python3\n"
    )
    script = batch_script(read_slurm(file), "tcp://10.0.0.1:8786").splitlines()
    for line in ("ntasks=64", "cpus-per-task=8", "mem-per-cpu=2048M", "gpus-per-task=1", "partition=gpu"):
        assert f"#SBATCH --{line}" in script
    assert script.index("module load cuda") < len(script) - 1
    assert script[-1].startswith("exec srun --kill-on-bad-exit=0 python3 -m distributed.cli.dask_worker tcp://10.0.0.1")
    assert "--nanny" in script[-1]
    assert f"--nthreads {THREADS} " in script[-1]


def worker_settings():
    import dask

    return {name: dask.config.get(name) for name in QUIET}


def test_workers_do_not_watch_themselves():
    with cluster.connected("local:1") as client:
        client.wait_for_workers(1)
        assert list(client.run(worker_settings).values()) == [dict(QUIET)]


def test_the_slurm_script_tells_workers_the_same():
    stated = dict(word.split("=") for word in as_environment(QUIET).split())
    ask = "import dask.config, sys; print([str(dask.config.get(name)) for name in sys.argv[1:]])"
    command, environment = [sys.executable, "-c", ask, *QUIET], {**os.environ, **stated}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([str(value) for value in QUIET.values()])
    script = batch_script(Slurm(), "tcp://10.0.0.1:8786").splitlines()
    assert f"export {as_environment(QUIET)}" in script


def test_a_slurm_file_with_a_slip_is_refused(tmp_path):
    file = tmp_path / "slurm.yaml"
    file.write_text("worker: 3\n")
    with pytest.raises(ValueError, match=r"slurm\.yaml: unknown setting 'worker'; did you mean 'workers'\?"):
        read_slurm(file)
    with pytest.raises(ValueError, match="workers and cpus are at least 1"):
        Slurm(workers=0)
