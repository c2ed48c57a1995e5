"""Which run a restarted rank resumes: the one that its own launch began, and no other."""

import os

import pytest

from lightning_mem1.cli import restarts, run_folder


@pytest.fixture
def torchrun(monkeypatch):
    """Puts this process under torchrun."""

    def start(run_id="none", attempt=0, num_nodes=1):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", run_id)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        monkeypatch.setenv("GROUP_WORLD_SIZE", str(num_nodes))
        monkeypatch.setenv("RANK", "0")

    return start


def begin(tmp_path, checkpoint=True):
    """A run's folder as `fit` settles it, left by a process that died."""
    folder = run_folder.settled(None, "tiny", None, False, None)
    if checkpoint:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/last.ckpt").touch()
    with run_folder.releasing():
        pass
    return folder


def test_a_restarted_rank_finds_the_run_of_its_launch_and_no_other(torchrun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torchrun("other")
    begin(tmp_path)
    torchrun("mine")
    mine = begin(tmp_path)
    torchrun("third")
    begin(tmp_path)
    root = tmp_path / "runs/tiny"
    torchrun("mine")
    assert restarts.begun_in(root) is None, "the first attempt resumes nothing by itself"
    torchrun("mine", attempt=1)
    assert restarts.begun_in(root) == tmp_path / mine
    torchrun("nobody", attempt=1)
    assert restarts.begun_in(root) is None


def test_without_an_id_a_launch_on_one_machine_is_known_by_its_process(torchrun, monkeypatch):
    torchrun()
    assert restarts.launch().endswith(f":{os.getppid()}")
    torchrun(num_nodes=2)
    assert restarts.launch() is None, "several machines have no process in common"
    for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name)
    assert restarts.launch() is None and not restarts.is_restart()


def test_a_run_that_never_wrote_anything_leaves_no_folder(torchrun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torchrun("mine")
    folder = begin(tmp_path, checkpoint=False)
    assert not folder.exists()


def test_a_folder_that_settings_name_is_written_again_after_a_restart_only(torchrun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torchrun("mine")
    run_folder.settled("here", "tiny", None, False, None)
    (tmp_path / "here/checkpoints").mkdir()
    (tmp_path / "here/checkpoints/best.ckpt").touch()  # a validation before the first rl_step
    with run_folder.releasing():
        pass
    with pytest.raises(ValueError, match="folder holds a run"):
        run_folder.settled("here", "tiny", None, False, None)
    torchrun("mine", attempt=1)
    with run_folder.releasing():
        assert str(run_folder.settled("here", "tiny", None, False, None)) == "here"
