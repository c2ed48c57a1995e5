"""Shell completion: the script that bash reads completes commands, experiments, settings and their values."""

import shutil
import subprocess
from importlib.util import find_spec

import pytest

from lightning_mem1.cli.main import main

needs_shtab = pytest.mark.skipif(not find_spec("shtab"), reason="shtab is not installed (extra: completion)")
ASK = """
source mem1.bash
ask() {
  COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMPREPLY=()
  _shtab_mem1 mem1 "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
  echo "${COMPREPLY[*]}"
}
"""


@needs_shtab
@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_commands_experiments_settings_and_values(tmp_path, capsys):
    assert main(["--print_completion", "bash"]) == 0
    (tmp_path / "mem1.bash").write_text(capsys.readouterr().out)
    asked = {
        "mem1 ev": "evaluate",
        "mem1 fit websh": "webshop",
        "mem1 fit claim/warmstart_b": "claim/warmstart_base",
        "mem1 fit webshop --model.loss_u": "--model.loss_unit",
        "mem1 fit webshop --model.loss_unit ''": "token turn trajectory",
        "mem1 fit webshop --data.group_s": "--data.group_size",
        "mem1 evaluate webshop --obj": "--objectives",
        "mem1 warmstart warmstart --warmstart.optim.circ": "--warmstart.optim.circuit_lr",
        "mem1 serve-shop --human-": "--human-goals",
    }
    script = ASK + "\n".join(f"ask {line}" for line in asked)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert dict(zip(asked, done.stdout.splitlines(), strict=True)) == asked, done.stderr


@needs_shtab
def test_a_command_gives_the_script_of_all(capsys):
    assert main(["fit", "--print_completion", "tcsh"]) == 0
    assert "complete mem1" in capsys.readouterr().out


def test_an_unknown_shell_is_one_line(capsys):
    assert main(["--print_completion", "fish"]) == 1
    assert capsys.readouterr().err == (
        "error: no completion for this shell: expected one of bash, zsh, tcsh, got 'fish'\n"
    )


@pytest.mark.skipif(bool(find_spec("shtab")), reason="shtab is installed")
def test_without_shtab_one_line_says_how_to_install_it(capsys):
    assert main(["--print_completion", "bash"]) == 1
    assert capsys.readouterr().err == (
        "error: completion needs the package shtab, got none: pip install 'lightning_mem1[completion]'\n"
    )
