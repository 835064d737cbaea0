"""Building the compiled kernels: what is said when it cannot be done, and what is kept."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import copy, which

import pytest
import torch
from helpers import ROOT, run_with_torch
from kernels_helpers import library

sys.path.insert(0, str(ROOT / "tools"))

import kernel_sass
from vistalib_kernels.remedies import explain

build = pytest.importorskip("vistalib_kernels.build")
nvrtc = pytest.importorskip("vistalib_kernels.nvrtc")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("VISTALIB_KERNELS_CACHE", str(tmp_path))
    return tmp_path


def tool(folder: Path, name: str, prints: str, status: int = 0) -> Path:
    """A program that prints and ends."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\nprint({prints!r})\nsys.exit({status})\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("output", "first", "remedy"),
    [
        pytest.param(
            "note\nhost_config.h:137:2: error: #error -- unsupported GNU version! gcc versions later than 15 are not",
            "unsupported GNU version", "name an older one in CXX", id="young-gcc",
        ),
        pytest.param("nvcc fatal   : Unsupported gpu architecture 'compute_120'", "Unsupported", "not know that GPU", id="gpu"),
        pytest.param("b.cpp:6: fatal error: torch/csrc/stable/x.h: No such file", "torch/csrc", "install torch", id="torch"),
        pytest.param("g++: error: unrecognized command-line option '-std=c++20'", "unrecognized", "GCC 11", id="old-gcc"),
        pytest.param("the PTX was compiled with an unsupported toolchain.", "unsupported", "update the driver", id="driver"),
        pytest.param("cc1plus: error: No space left on device", "No space", "make room", id="disk"),
        pytest.param("x.cpp:1:1: error: new\nx.cpp:2:2: error: more", "error: new", "no remedy is known", id="unknown"),
    ],
)  # fmt: skip
def test_a_failure_shows_the_first_error_and_what_helps(output: str, first: str, remedy: str) -> None:
    said, helps, command = explain(["/usr/bin/nvcc", "-c", "x.cu"], output).splitlines()
    assert said.startswith("nvcc failed: ")
    assert first in said
    assert remedy in helps
    assert command == "the command was: /usr/bin/nvcc -c x.cu"


def test_without_a_compiler_the_packages_are_named(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(elsewhere / "empty"))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(build.BuildFailed, match=r"there is no C\+\+ compiler; install one .*apt-get install g\+\+"):
        build.build()


def test_a_failed_build_is_remembered_until_one_succeeds(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tool(elsewhere / "bin", "c++", "x.cpp:1:1: error: no luck", status=1)))
    with pytest.raises(build.BuildFailed, match="no luck"):
        build.build(say=lambda line: None)
    assert "no luck" in build.last_failure()
    assert build.find() is None
    monkeypatch.setenv("CXX", str(tool(elsewhere / "bin", "c++", "fine")))
    monkeypatch.setattr(Path, "replace", lambda self, target: target)  # the compiler made nothing to move
    build.build(say=lambda line: None)
    assert build.last_failure() is None


@pytest.mark.parametrize("release", ["12.8", "14.0"])
def test_nvcc_of_another_major_version_is_refused(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    nvcc = tool(elsewhere / "bin", "nvcc", f"Cuda compilation tools, release {release}, V{release}.1")
    monkeypatch.setenv("CUDA_HOME", str(nvcc.parent.parent))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(build.BuildFailed, match=f"got nvcc {release} and torch with CUDA 13\\.0; point CUDA_HOME"):
        build.build(architectures=("90",), say=lambda line: None)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISTALIB_KERNELS_CACHE", str(tmp_path / "file"))
    with pytest.raises(build.BuildFailed, match=r"cannot be written: .*; set VISTALIB_KERNELS_CACHE"):
        build.build(say=lambda line: None)


def test_what_was_built_is_not_built_again() -> None:
    library()
    lines: list[str] = []
    assert build.build(say=lines.append) == build.find()
    assert lines == [f"already built: {build.folder() / build.LIBRARY}"]


@pytest.mark.parametrize("with_cuda", [False, True], ids=["cpu", "cuda"])
def test_the_operators_compile_for_a_torch_with_and_without_cuda(tmp_path: Path, with_cuda: bool) -> None:
    if which("g++") is None:
        pytest.skip("no g++ here")
    for source in build.SOURCES.iterdir():
        copy(source, tmp_path)
    command = build.bindings_command("g++", with_cuda=with_cuda)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (b"aoti_torch_get_current_cuda_stream" in (tmp_path / "bindings.o").read_bytes()) == with_cuda


def test_the_compiled_operator_checks_what_it_reads() -> None:
    from vistalib_kernels import extension

    library()
    value, offset, mask = torch.zeros(1, 4, 4, 8), torch.zeros(1, 4, 4, 18), torch.zeros(1, 4, 4, 9)
    pairs = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    rest = {"groups": 1, **pairs, "offset_scale": 1.0, "mask_is_logits": True}
    with pytest.raises(RuntimeError, match=r"offset must be \(N, P, Q, groups \* points \* 2\)"):
        extension.forward(value, offset[..., :-1], mask, **rest)
    with pytest.raises(RuntimeError, match="must have one dtype"):
        extension.forward(value, offset.double(), mask, **rest)


def test_the_twin_gives_the_same_bits_with_any_number_of_threads() -> None:
    library()
    path = str(Path(__file__).parent)
    printed = run_with_torch(
        f"import sys; sys.path.insert(0, {path!r})\nimport torch\nfrom ops_helpers import random_inputs\n"
        "from vistalib_kernels import extension\n"
        "i = random_inputs(2, 20, 20, groups=4, group_channels=16, dtype=torch.float32)\nresults = []\n"
        "for threads in (1, 3):\n    torch.set_num_threads(threads)\n"
        "    rest = {**i.settings, 'mask_is_logits': True}\n"
        "    results.append([extension.forward(*i.tensors, **rest), *extension.backward(i.grad_output, *i.tensors, **rest)])\n"
        "print(all(torch.equal(a, b) for a, b in zip(*results)))"
    )
    assert printed == "True"


@pytest.mark.parametrize(
    "name",
    [
        "dcnv3::forward<float, 16>",
        "dcnv3::largest<dcnv3::Half>",
        "dcnv3::backward_in_tiles<float, 16>",
        pytest.param("dcnv3::backward_by_products<dcnv3::BFloat16, 16>", marks=pytest.mark.slow),
        pytest.param("dcnv3::forward_in_window<dcnv3::Half, 2>", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("architecture", [pytest.param("75", marks=pytest.mark.slow), "90"])
def test_nvrtc_compiles_the_same_source(elsewhere: Path, name: str, architecture: str) -> None:
    if (trouble := nvrtc.trouble()) is not None:
        pytest.skip(f"no NVRTC here: {trouble}")
    lowered, code = nvrtc.machine_code(name, architecture)
    assert lowered.startswith(b"_ZN5dcnv3")
    assert code.startswith(b"\x7fELF")
    assert nvrtc.machine_code(name, architecture) == (lowered, code)
    assert len(list(elsewhere.glob("*/*.cubin"))) == 1


SPILLING = """ptxas info    : Compiling entry function '_ZN5dcnv37forwardINS_4HalfELi16EEEvNS_7ProblemIf' for 'sm_90'
ptxas info    : Function properties for _ZN5dcnv37forwardINS_4HalfELi16EEEvNS_7ProblemIf
    8 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 8 bytes cumulative stack size, 3456 bytes smem
"""


def test_local_memory_of_a_specialised_kernel_is_seen() -> None:
    rows = list(kernel_sass.resources(SPILLING, "90"))
    assert [(row["kernel"], row["dtype"], row["channels"]) for row in rows] == [("forward", "float16", 16)]
    assert [(row["registers"], row["stack_bytes"], row["spill_bytes"]) for row in rows] == [(32, 8, 40)]
    assert kernel_sass.in_local_memory(rows) == rows


@pytest.mark.slow
@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_specialised_kernels_keep_out_of_local_memory(architecture: str) -> None:
    if (nvcc := build.find_nvcc()) is None:
        pytest.skip("no nvcc here: the CUDA kernels are not compiled")
    rows = kernel_sass.read(nvcc, [architecture], with_counts=False)
    assert len([row for row in rows if row["channels"]]) == 32  # dtypes x widths, tiles, windows, products, lists
    assert kernel_sass.in_local_memory(rows) == []


def test_the_record_of_the_machine_code_is_of_these_sources() -> None:
    record = json.loads(kernel_sass.RECORD.read_text(encoding="utf-8"))
    assert record["sources"] == kernel_sass.digest(), "the kernels have changed; run: python tools/kernel_sass.py"
    assert {row["architecture"] for row in record["kernels"]} == set(build.ARCHITECTURES)
    assert kernel_sass.in_local_memory(record["kernels"]) == []
