"""Shell completion as shells ask for it: by an environment variable, and by bash itself."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from gpunet.cli import main
from gpunet.datasets import names
from gpunet.experiments import experiments

from .runner import command, run

SHELLS = ("bash", "zsh", "fish", "powershell")
SETS = list(names())


def asked(capsys, monkeypatch, line, shell="bash"):
    """What the shell is told for a line that ends at the cursor."""
    words = line.split(" ")
    told = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1], "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "_GPUNET_COMPLETE": f"complete_{shell}"}  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    found = capsys.readouterr()
    assert found.err == ""
    assert ended.value.code == 0
    return found.out.split("\n")[:-1] if found.out.strip() else []


@pytest.fixture(autouse=True)
def _streams(monkeypatch):
    """`main` listens to signals, which a test's process keeps."""
    monkeypatch.setattr("gpunet.cli.process.leave_when_told", lambda: None)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("gpunet ", ["run", "pca", "compress", "reproduce", "sweep", "info", "data", "bench"]),
        ("gpunet re", ["reproduce"]),
        ("gpunet nonsense", []),
        ("gpunet --v", ["--version"]),
        ("gpunet run ", list(experiments())),
        ("gpunet run d", ["dmn"]),
        ("gpunet -q run --debug s", ["svd-init", "svd-dnn"]),
        ("gpunet run svd-init --da", ["--dataset"]),
        ("gpunet run svd-init --qu", ["--quick", "--quiet"]),
        ("gpunet run svd-init --dataset ", SETS),
        ("gpunet run svd-init -d mn", ["mnist"]),
        ("gpunet run svd-init --dataset=mn", ["mnist"]),
        ("gpunet run svd-init -d nonsense/", []),
        ("gpunet run svd-init --quick --device n", ["numpy"]),
        ("gpunet run svd-dnn --task ", ["xor", "cats", "mnist"]),
        ("gpunet run svd-init --out ", []),
        ("gpunet data fetch ci", ["cifar10", "cifar100"]),
        ("gpunet data fetch mnist ci", ["cifar10", "cifar100"]),
        ("gpunet data verify xor-", ["xor-easy"]),
        ("gpunet data path di", ["digits"]),
        ("gpunet sweep ", [*experiments(), "train", "function", "join"]),
        ("gpunet sweep train --optimizer ", ["adam", "adamw", "sgd"]),
        ("gpunet sweep train --direction m", ["maximize", "minimize"]),
        ("gpunet reproduce --only t", ["toy"]),
        ("gpunet bench train --case digits-32", ["digits-32", "digits-32-deep"]),
        ("gpunet pca ", []),
    ],
)  # fmt: skip
def test_what_bash_is_told(capsys, monkeypatch, line, offered):
    assert asked(capsys, monkeypatch, line) == offered


def test_data_sets_stand_beside_files_of_such_names(capsys, monkeypatch, tmp_path):
    for name in ("digits.npz", "different"):
        (tmp_path / name).touch()
    (tmp_path / "dim[0]").mkdir()
    assert asked(capsys, monkeypatch, "gpunet run toy -d di") == ["digits", "different", "digits.npz", "dim[0]/"]
    assert asked(capsys, monkeypatch, "gpunet run toy -d dif") == [], "a shell offers files by itself"


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_is_told_of_commands_with_what_they_do(capsys, monkeypatch, shell):
    told = "\n".join(asked(capsys, monkeypatch, "gpunet inf", shell))
    assert "info" in told
    assert ("devices" in told) == (shell != "bash")


def test_where_nothing_is_offered_zsh_looks_for_files(capsys, monkeypatch):
    assert asked(capsys, monkeypatch, "gpunet pca ", "zsh") == ["_files"]


@pytest.mark.parametrize("line", ["gpunet run 'x", "gpunet run svd-init -d \x01", "", "gpunet --nonsense run "])
def test_a_line_that_makes_no_sense_is_answered_with_nothing(line, tmp_path):
    done = subprocess.run(
        command(), capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"COMP_WORDS": line, "COMP_CWORD": "2", "_GPUNET_COMPLETE": "complete_bash"},
    )  # fmt: skip
    assert done.stderr == ""
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(capsys, monkeypatch, shell):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = subprocess.run(command("--show-completion", shell), capture_output=True, text=True, timeout=60, check=True)
    assert "_GPUNET_COMPLETE" in done.stdout
    assert done.stderr == ""


def test_python_m_shows_the_script_of_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "gpunet", "--show-completion", "bash"], capture_output=True, text=True, timeout=60,
        check=True, env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )  # fmt: skip
    assert "complete -o default -F _gpunet_completion gpunet\n" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_itself_completes(tmp_path):
    """The script is sourced, and its function called as bash calls it."""
    (tmp_path / "gpunet").write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    (tmp_path / "gpunet").chmod(0o755)
    script = """
        source <(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 gpunet --show-completion bash)
        complete -p gpunet
        ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gpunet_completion gpunet; echo "${COMPREPLY[@]}"; }
        ask gpunet r
        ask gpunet run svd-init --dataset m
        ask gpunet data fetch ""
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=120, check=True,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "complete -o default -F _gpunet_completion gpunet", "run reproduce", "mnist", " ".join(SETS),
    ]  # fmt: skip
    assert done.stderr == ""


def test_completion_imports_nothing_heavy():
    code = (
        "import sys; from gpunet.cli import main\ntry:\n main()\nexcept SystemExit: pass\n"
        "print([m for m in ('numpy', 'rich', 'matplotlib', 'sklearn', 'pooch', 'optuna') if m in sys.modules])"
    )
    line = "gpunet run svd-init --dataset m"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"COMP_WORDS": line, "COMP_CWORD": "4", "_GPUNET_COMPLETE": "complete_bash"},
    )  # fmt: skip
    assert done.stdout == "mnist\n[]\n"


def test_an_empty_variable_asks_nothing(monkeypatch, capsys):
    monkeypatch.setenv("_GPUNET_COMPLETE", "")
    assert run(capsys, "--version").code == 0
