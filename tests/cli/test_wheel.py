"""A wheel, installed in a new environment and used outside of any checkout."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from PIL import Image

from tests.commands import ROOT, TINY, environment

CONFIGS = sorted(path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml"))


def call(*words, **settings):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=600, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of an environment that has the wheel, and everything else from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"  # building in a checkout leaves build/ there
    names = call("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in names:
        source, target = ROOT / name, copy / name
        if not name.startswith(("tests/", "benchmarks/", "docs/")) and source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            else:
                target.write_bytes(source.read_bytes())
    build = ("wheel", copy, "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    call(sys.executable, "-m", "pip", *build, cwd=folder)
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    (packages,) = (folder / "venv/lib").glob("*/site-packages")
    # A .pth in a .pth is not read, so that the editable install of this project stays out.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (wheel,) = folder.glob("*.whl")
    call(sys.executable, "-m", "pip", "--python", folder / "venv/bin/python", "install", "--no-deps",
         "--no-index", "--force-reinstall", "--ignore-installed", wheel, cwd=folder)  # fmt: skip
    assert sorted(path.relative_to(packages / "fer_lightning/conf") for path in
                  (packages / "fer_lightning/conf").rglob("*.yaml")) == CONFIGS  # fmt: skip
    page = "fer_lightning/inference/export/page"
    assert {each.name for each in (packages / page).iterdir()} == {
        each.name for each in (ROOT / page).iterdir()
    }
    return folder / "venv/bin"


@pytest.mark.slow
def test_installed_command_trains_evaluates_predicts_and_reports(installed, tmp_path):
    env = environment(tmp_path / "home") | {"PATH": f"{installed}{os.pathsep}{os.environ['PATH']}"}
    del env["PYTHONPATH"]
    here = tmp_path / "here"
    here.mkdir()

    def fer(*words):
        return call(installed / "fer-lightning", *words, cwd=here, env=env)

    code = "import fer_lightning.config.folders as folders; print(folders.CONF)"
    conf = Path(call(installed / "python", "-c", code, cwd=here, env=env).strip())
    assert conf.is_relative_to(installed.parent)
    assert fer("--version") == "fer_lightning 0.1.0\n"
    assert "fer-lightning train model=cnn" in fer("train", "--help")
    sweep = ("-m", "seed=0,1", "hydra.sweep.dir=sweep")
    fer("train", "model=mlp", *TINY, "trainer=smoke", "logger=csv", *sweep)
    run, other = sorted(page.parent for page in here.glob("sweep/*/report.html"))
    assert "test accuracy" in fer("eval", f"checkpoint={run}")
    Image.new("L", (48, 48), 128).save(here / "face.png")
    assert "face.png" in fer("predict", "face.png", "--detector", "none", "--checkpoint", run)
    assert "resnet15" in fer("predict", "face.png", "--detector", "none")
    (other / "report.html").unlink()
    assert fer("report", other).strip() == str(other / "report.html")
    assert sorted(path.name for path in here.iterdir()) == ["face.png", "outputs", "sweep"]
