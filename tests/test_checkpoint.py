"""A checkpoint is whole or absent, whatever happens while it is written, and comes back bit for bit."""

import ast
import errno
import itertools
import json
import os
import random
import resource
import shutil
import signal
import socket
import stat
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from torch import Tensor

from corpora.errors import CheckpointError, StorageError, UserError
from training import checkpoint, folders
from training.checkpoint import load_newest, lock_run, save_checkpoint, sweep
from training.folders import MANIFEST, publish_folder, verify_folder

# Newer Pythons warn of a fork where threads exist; these children touch no thread and leave by os._exit.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

DIED = 9


def make_tensors(value: float) -> dict[str, dict[str, Tensor]]:
    return {
        "model": {"weight": torch.full((3, 5), value), "bias": torch.full((2,), value, dtype=torch.bfloat16)},
        "optimizer": {"step": torch.tensor(int(value)), "exp_avg": torch.full((3, 5), value / 3)},
    }


def save(root: Path, step: int, value: float | None = None, keep: int = 2) -> Path:
    value = float(step) if value is None else value
    return save_checkpoint(root, step, make_tensors(value), {"value": value}, keep=keep)


def value_of(root: Path) -> tuple[int, float] | None:
    """Load the newest checkpoint, check that all of it belongs together, and say which it is."""
    found = load_newest(root)
    if found is None:
        return None
    value = found.state["value"]
    for group, named in make_tensors(value).items():
        assert found.tensors[group].keys() == named.keys()
        assert all(torch.equal(found.tensors[group][name], tensor) for name, tensor in named.items())
    return found.step, value


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def steps_of(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("step-*"))


def litter_of(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name.startswith("."))


def run_in_child(action: Callable[[], Any]) -> int:
    """Run `action` in a forked child and return its exit status: 0, 1 after an exception, minus the signal."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- what comes back


BITS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.uint8]


@pytest.mark.parametrize("dtype", [*BITS, torch.int8, torch.bool])
def test_every_bit_pattern_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    raw = torch.randint(0, 256, (4096,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tensor = raw.view(dtype) if dtype != torch.bool else raw > 100  # floats among them are NaNs with payloads too
    shapes = {
        "flat": tensor,
        "square": tensor[:64].reshape(8, 8).clone(),
        "scalar": tensor[3].clone(),
        "none": tensor[:0],
    }
    save_checkpoint(tmp_path, 1, {"model": shapes}, {})
    loaded = load_newest(tmp_path)
    assert loaded is not None and loaded.tensors["model"].keys() == shapes.keys()
    for name, expected in shapes.items():
        found = loaded.tensors["model"][name]
        assert found.dtype == dtype and found.shape == expected.shape
        assert torch.equal(found.reshape(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8))


def test_special_floats_keep_their_bits(tmp_path: Path) -> None:
    tensor = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-45, 3.4028235e38])
    tensors = {"model": {"f": tensor, "b": tensor.bfloat16()}}
    save_checkpoint(tmp_path, 1, tensors, {})
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.tensors["model"]["f"].view(torch.int32).tolist() == tensor.view(torch.int32).tolist()
    assert loaded.tensors["model"]["b"].view(torch.int16).tolist() == tensor.bfloat16().view(torch.int16).tolist()


def test_the_state_comes_back_equal(tmp_path: Path) -> None:
    state = {"seed": 2**63 - 1, "loss": 0.1 + 0.2, "name": "naïve 😀\u2028", "list": [1, None, True, {"a": []}], "": {}}
    path = save_checkpoint(tmp_path / "deep" / "checkpoints", 42, {"model": {}}, state)
    loaded = load_newest(tmp_path / "deep" / "checkpoints")
    assert loaded is not None
    assert (loaded.step, loaded.path, loaded.state, loaded.tensors) == (42, path, state, {"model": {}})
    assert path.name == "step-00000042"


@pytest.mark.parametrize("state", [{"a": float("nan")}, {"a": float("inf")}, {1: "a"}, {"a": (1, 2)}, {"a": {2: 3}}])
def test_a_state_that_json_would_change_is_refused_before_anything_is_written(tmp_path: Path, state: Any) -> None:
    with pytest.raises(ValueError):
        save_checkpoint(tmp_path, 1, make_tensors(1), state)
    assert list(tmp_path.iterdir()) == []


def test_tied_tensors_are_stored_once_and_come_back_as_one(tmp_path: Path) -> None:
    weight = torch.randn(1000, 10)
    named = {
        "a": weight,
        "b": torch.nn.Parameter(weight),
        "c": weight.clone(),
        "transposed": weight.T,
        "part": weight[3:5],
    }
    path = save_checkpoint(tmp_path, 1, {"model": {**named, "flat": weight.view(-1)}}, {})
    loaded = load_newest(tmp_path)
    assert loaded is not None
    found = loaded.tensors["model"]
    for name, tensor in named.items():
        assert torch.equal(found[name], tensor)
    assert found["a"].data_ptr() == found["b"].data_ptr() != found["c"].data_ptr()
    size = (path / "model.safetensors").stat().st_size
    assert 4 * 40_000 < size < 4 * 40_000 + 2000  # a with b, c, the transposed and the flat one


def test_parts_of_one_buffer_and_strided_tensors_come_back(tmp_path: Path) -> None:
    buffer = torch.arange(100.0)
    named = {"first": buffer[:60], "second": buffer[60:], "strided": buffer[::7], "expanded": buffer[:1].expand(4)}
    save_checkpoint(tmp_path, 1, {"model": named}, {})
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert all(torch.equal(loaded.tensors["model"][name], tensor) for name, tensor in named.items())


@pytest.mark.slow  # to make torch's first optimizer takes seconds
def test_a_model_and_its_optimizer_continue_exactly(tmp_path: Path) -> None:
    def build() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def train(model: torch.nn.Linear, optimizer: torch.optim.AdamW, num_steps: int) -> None:
        for _ in range(num_steps):
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    straight, optimizer = build()
    train(straight, optimizer, 3)
    states = {f"{index}.{key}": t for index, s in optimizer.state_dict()["state"].items() for key, t in s.items()}
    save_checkpoint(tmp_path, 3, {"model": straight.state_dict(), "optimizer": states}, {})
    train(straight, optimizer, 3)

    resumed, optimizer = build()
    loaded = load_newest(tmp_path)
    assert loaded is not None
    resumed.load_state_dict(loaded.tensors["model"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in loaded.tensors["optimizer"].items():
        state.setdefault(int(name.split(".")[0]), {})[name.split(".")[1]] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    train(resumed, optimizer, 3)
    assert torch.equal(resumed.weight, straight.weight) and torch.equal(resumed.bias, straight.bias)


def test_what_was_loaded_does_not_change_with_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    loaded = load_newest(tmp_path)
    with open(path / "model.safetensors", "r+b") as file:
        file.write(b"\0" * 400)
    assert loaded is not None and torch.equal(loaded.tensors["model"]["weight"], torch.full((3, 5), 1.0))


@pytest.mark.parametrize("group", ["", "../x", "a/b", "Model", "a b", "x" * 60])
def test_a_group_needs_a_plain_name(tmp_path: Path, group: str) -> None:
    with pytest.raises(ValueError, match="group"):
        save_checkpoint(tmp_path, 1, {group: {}}, {})
    with pytest.raises(ValueError, match="__metadata__"):
        save_checkpoint(tmp_path, 1, {"model": {"__metadata__": torch.zeros(1)}}, {})


# --- retention


def test_the_newest_are_kept_and_the_rest_removed(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step)
    assert steps_of(tmp_path) == ["step-00000004", "step-00000005"] and not litter_of(tmp_path)
    for step in range(6, 10):
        save(tmp_path, step, keep=3)
    assert steps_of(tmp_path) == ["step-00000007", "step-00000008", "step-00000009"]


@pytest.mark.parametrize("keep", [1, 0, -1])
def test_fewer_than_two_cannot_be_kept(tmp_path: Path, keep: int) -> None:
    with pytest.raises(UserError, match="at least 2"):
        save(tmp_path, 1, keep=keep)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "step-00000002" / "state.json").write_text("{}")
    save(tmp_path, 3)
    assert steps_of(tmp_path) == [f"step-0000000{step}" for step in (1, 2, 3)]
    save(tmp_path, 4)
    assert steps_of(tmp_path) == ["step-00000003", "step-00000004"]


def test_newer_steps_are_not_removed_by_an_older_one(tmp_path: Path) -> None:
    for step in (7, 8, 3):
        save(tmp_path, step)
    assert steps_of(tmp_path) == ["step-00000003", "step-00000007", "step-00000008"]


def test_a_step_saved_again_replaces_the_first_even_if_that_is_damaged(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    save(tmp_path, 2, value=20.0)
    assert value_of(tmp_path) == (2, 20.0)
    for damage in (MANIFEST, "state.json"):
        (tmp_path / "step-00000002" / damage).unlink()
        (tmp_path / "step-00000002" / "stray").write_text("")
        save(tmp_path, 2, value=30.0)
        assert value_of(tmp_path) == (2, 30.0)
    assert not litter_of(tmp_path)


# --- what is not accepted


def test_no_checkpoints_are_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "nowhere") is None
    (tmp_path / ".tmp-1-abc").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert load_newest(tmp_path) is None


def test_a_damaged_newest_falls_back_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    content = (tmp_path / "step-00000002" / "model.safetensors").read_bytes()
    (tmp_path / "step-00000002" / "model.safetensors").write_bytes(content[:-1])
    assert value_of(tmp_path) == (1, 1.0)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("warning: ")
    for fact in (
        "step-00000002",
        "model.safetensors",
        f"{len(content) - 1} bytes instead of {len(content)}",
        "step-00000001",
    ):
        assert fact in error
    save(tmp_path, 3)
    assert value_of(tmp_path) == (3, 3.0)
    assert capsys.readouterr().err == ""


def test_when_all_are_bad_each_is_listed_and_nothing_starts_again(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, keep=5)
    (tmp_path / "step-00000001" / MANIFEST).unlink()
    (tmp_path / "step-00000002" / "extra").write_text("")
    (tmp_path / "step-00000003" / "state.json").write_text("{}")
    (tmp_path / "step-4").mkdir()
    before = read_all(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_newest(tmp_path)
    message = str(caught.value)
    for fact in (
        "step-00000001: has no MANIFEST",
        "step-00000002: 'extra'",
        "step-00000003: 'state.json' has 2 bytes",
        "step-4",
    ):
        assert fact in message
    assert "\n" not in message and caught.value.exit_code == 2 and read_all(tmp_path) == before


def test_a_misnamed_checkpoint_alone_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    for name in ("step-1", "step-000000001", "step-00000001.bak", "step-", "step-٠٠٠٠٠٠٠١"):
        (tmp_path / name).mkdir()
        with pytest.raises(CheckpointError, match="not a checkpoint's name"):
            load_newest(tmp_path)
        (tmp_path / name).rmdir()


def test_a_renamed_checkpoint_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1).rename(tmp_path / "step-00000002")
    with pytest.raises(CheckpointError, match="saved at step 1; it was renamed"):
        load_newest(tmp_path)


def test_a_linked_checkpoint_is_refused_and_a_moved_run_is_not(tmp_path: Path) -> None:
    save(tmp_path / "old", 1)
    (tmp_path / "old").rename(tmp_path / "new")
    assert value_of(tmp_path / "new") == (1, 1.0)
    (tmp_path / "linked").symlink_to(tmp_path / "new")
    assert value_of(tmp_path / "linked") == (1, 1.0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "step-00000001").symlink_to(tmp_path / "new" / "step-00000001")
    with pytest.raises(CheckpointError, match="links are not followed"):
        load_newest(tmp_path / "other")


@pytest.mark.slow
def test_hundreds_of_flipped_bits_and_cuts_never_load(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    draws = random.Random(1)
    originals = read_all(newest)
    for index in range(300):
        name = draws.choice(sorted(originals))
        content = bytearray(originals[name])
        place = draws.randrange(len(content))
        if index % 2:
            content[place] ^= 1 << draws.randrange(8)
        else:
            del content[place:]
        (newest / name).write_bytes(content)
        assert value_of(tmp_path) == (1, 1.0), (name, place)
        (newest / name).write_bytes(originals[name])
    assert value_of(tmp_path) == (2, 2.0)


class Payload:
    """An object that, unpickled, leaves a trace."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("name", ["custom_checkpoint_0.pkl", "optimizer.bin", "pytorch_model.bin", "__init__.py"])
def test_a_planted_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    newest = save(tmp_path, 1)
    torch.save(Payload(tmp_path / "canary"), newest / name)
    opened: list[str] = []
    real = os.open

    def spy(path: Any, *args: Any, **kwargs: Any) -> int:
        opened.append(str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", spy)
    with pytest.raises(CheckpointError, match=name):
        load_newest(tmp_path)
    assert any(MANIFEST in path for path in opened) and not any(name in path for path in opened)

    def write(folder: Path) -> None:  # now with a manifest that lists it
        for source in newest.iterdir():
            if source.name != MANIFEST:
                shutil.copy(source, folder)

    publish_folder(tmp_path / "other" / "step-00000001", write)
    with pytest.raises(CheckpointError, match="does not belong"):
        load_newest(tmp_path / "other")
    assert not (tmp_path / "canary").exists()


def test_no_pickle_is_used_in_the_source() -> None:
    forbidden = {"pickle", "dill", "joblib", "shelve", "marshal", "eval", "exec"}
    for module in (checkpoint, folders):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.id] if isinstance(node, ast.Name) else []
            assert not forbidden & set(names)
            is_torch_load = (
                isinstance(node, ast.Attribute) and node.attr == "load" and ast.unparse(node.value) == "torch"
            )
            assert not is_torch_load


def publish_hostile(root: Path, files: dict[str, bytes]) -> None:
    """Publish a checkpoint whose sums are right and whose content isn't: `files` replace those of a true one."""
    true = save(root / "true", 1)
    content = {name: value for name, value in read_all(true).items() if name != MANIFEST} | files

    def write(folder: Path) -> None:
        for name, value in content.items():
            (folder / name).write_bytes(value)

    publish_folder(root / "hostile" / "step-00000001", write)


def with_header(header: bytes, data: bytes = b"\0" * 64) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


ONE = b'"dtype":"F32","shape":[16],"data_offsets":[0,64]'
SAFETENSORS = [
    *(b"", b"\0" * 7, (2**63).to_bytes(8, "little"), (2**64 - 1).to_bytes(8, "little") + b"{}"),
    *((10**8 - 1).to_bytes(8, "little") + b" " * 100, with_header(b"[" * 100_000), with_header(b"\xff")),
    *(with_header(b"{}"), with_header(b"null")),
    with_header(b'{"a":{%s}}' % ONE.replace(b"64", b"128")),
    with_header(b'{"a":{%s},"b":{%s}}' % (ONE, ONE)),
    with_header(b'{"a":{%s}}' % ONE.replace(b"16", b"4")),
    with_header(b'{"a":{%s}}' % ONE.replace(b"16", b"-16")),
    with_header(b'{"a":{%s}}' % ONE.replace(b"16", b"9223372036854775807,4")),
    with_header(b'{"a":{%s}}' % ONE.replace(b"F32", b"F4").replace(b"16", b"128")),
]


@pytest.mark.parametrize("content", SAFETENSORS, ids=range(len(SAFETENSORS)))
def test_hostile_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    publish_hostile(tmp_path, {"model.safetensors": content})
    with pytest.raises(CheckpointError, match="model.safetensors"):
        load_newest(tmp_path / "hostile")


STATES = [
    b"", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff", b'{"format": 2}', b'{"format": 1}', b"1" * 5000,
    b'{"format": 1, "step": 1.0, "ties": {"model": {}, "optimizer": {}}, "state": {}}',
    b'{"format": 1, "step": true, "ties": {"model": {}, "optimizer": {}}, "state": {}}',
    b'{"format": 1, "step": 2, "ties": {"model": {}, "optimizer": {}}, "state": {}}',
    b'{"format": 1, "step": 1, "ties": {"model": {}, "optimizer": {}}, "state": []}',
    b'{"format": 1, "step": 1, "ties": {"model": {}}, "state": {}}',
    b'{"format": 1, "step": 1, "ties": {"model": {}, "optimizer": {}, "../x": {}}, "state": {}}',
    b'{"format": 1, "step": 1, "ties": {"model": {"a": "nowhere"}, "optimizer": {}}, "state": {}}',
    b'{"format": 1, "step": 1, "ties": {"model": {"bias": "weight"}, "optimizer": {}}, "state": {}}',
    b'{"format": 1, "step": 1, "ties": {"model": {"a": []}, "optimizer": {}}, "state": {}}',
]  # fmt: skip


@pytest.mark.parametrize("content", STATES, ids=range(len(STATES)))
def test_a_hostile_state_is_refused(tmp_path: Path, content: bytes) -> None:
    publish_hostile(tmp_path, {"state.json": content})
    with pytest.raises(CheckpointError, match="state|step|optimizer"):
        load_newest(tmp_path / "hostile")


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["weight", "model"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["model", "optimizer", "weight", "a"]), inner),
    max_leaves=8,
)
RECORDS = st.fixed_dictionaries(
    {}, optional={"format": st.just(1) | ANY_JSON, "step": st.just(1) | ANY_JSON, "ties": ANY_JSON, "state": ANY_JSON}
)


def test_no_state_of_any_shape_ends_in_a_traceback(tmp_path: Path) -> None:
    publish_hostile(tmp_path, {})
    folder = tmp_path / "hostile" / "step-00000001"

    @settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(RECORDS | ANY_JSON)
    def check(record: Any) -> None:
        (folder / "state.json").write_text(json.dumps(record))
        try:
            found = checkpoint._read_record(folder)
        except CheckpointError:
            return
        assert found["format"] == 1 and isinstance(found["state"], dict) and type(found["step"]) is int

    check()


# --- crashes and disks that fail, at every system call


CALLS: list[tuple[Any, str]] = [
    *(
        (os, name)
        for name in ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir", "chmod", "fchmod", "close")
    ),
    (safetensors.torch, "save_file"),  # writes without asking Python's os
    (Path, "write_bytes"),
]
Meet = Callable[[int, str, Callable[..., Any], tuple[Any, ...]], Any]


@contextmanager
def at_each_call(meet: Meet) -> Iterator[None]:
    """Send every call through `meet(number, name, call, arguments)`, numbered from 1."""
    originals = [(owner, name, getattr(owner, name)) for owner, name in CALLS]
    numbers = itertools.count(1)

    def patched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return meet(next(numbers), name, lambda *own: original(*own, **kwargs), args)

        return call

    for owner, name, original in originals:
        setattr(owner, name, patched(name, original))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def die_in_call(last: int, torn: bool, action: Callable[[], Any]) -> int:
    """Run `action` in a child that dies after call number `last`, or, `torn`, in the middle of write number `last`."""
    writes = itertools.count(1)

    def meet(number: int, name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if torn:
            number = next(writes) if name in ("write", "write_bytes", "save_file") else 0
        if number != last:
            return call(*args)
        if torn and name != "save_file":
            args = (args[0], args[1][: len(args[1]) // 2])
        call(*args)
        if torn and name == "save_file":
            os.truncate(args[1], os.path.getsize(args[1]) // 2)
        os._exit(DIED)

    def act() -> None:
        with at_each_call(meet):
            action()

    return run_in_child(act)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is saved before, as (step, value), what the disturbed save writes, and what may be the newest afterwards."""

    before: tuple[tuple[int, float], ...]
    disturbed: tuple[int, float]

    @property
    def allowed(self) -> set[tuple[int, float] | None]:
        return {self.before[-1] if self.before else None, self.disturbed}

    def prepare(self, root: Path) -> None:
        root.mkdir()
        for step, value in self.before:
            save(root, step, value)

    def disturb(self, root: Path) -> None:
        save(root, *self.disturbed)


SCENARIOS = {
    "the first": Scenario(before=(), disturbed=(1, 1.0)),
    "the second": Scenario(before=((1, 1.0),), disturbed=(2, 2.0)),
    "one that removes another": Scenario(before=((1, 1.0), (2, 2.0)), disturbed=(3, 3.0)),
    "the only one again": Scenario(before=((5, 5.0),), disturbed=(5, 6.0)),
}


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: these tests stop processes, not machines, and the order of fsync has its own test."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.slow
@pytest.mark.usefixtures("no_waiting_for_the_disk")
@pytest.mark.parametrize("torn", [False, True], ids=["after", "torn"])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_crash_at_any_system_call_leaves_a_whole_checkpoint(tmp_path: Path, scenario: Scenario, torn: bool) -> None:
    scenario.prepare(tmp_path / "before")
    found, root, status, last = set(), tmp_path / "run", DIED, 0
    while status == DIED:
        last += 1
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "before", root)
        status = die_in_call(last, torn, partial(scenario.disturb, root))
        for name in steps_of(root):
            verify_folder(root / name)
        newest = value_of(root)
        assert newest in scenario.allowed, last
        found.add(newest)
        sweep(root)
        assert not litter_of(root) and value_of(root) == newest, last
        assert len(steps_of(root)) >= len(scenario.before), last
        save(root, 9)
        assert value_of(root) == (9, 9.0)
    assert status == 0 and last > (3 if torn else 20), "the save was not disturbed to its end"
    assert found == scenario.allowed


def fail_from(first: int, error: int, *, for_ever: bool, met: list[int], raised: list[str]) -> Meet:
    def meet(number: int, name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        met.append(number)
        if number != first and not (for_ever and number > first):
            return call(*args)
        if name == "close":
            is_folder = stat.S_ISDIR(os.fstat(args[0]).st_mode)
            call(*args)  # a close that fails has closed all the same
            if is_folder:  # never fails; and rmtree would close it again
                return None
        raised.append(name)
        if name == "save_file":
            raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(error)} (os error {error})")
        raise OSError(error, os.strerror(error), str(args[0]))

    return meet


ERRORS = {"ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT, "EIO": errno.EIO, "EROFS": errno.EROFS}


def check_failing_disk(tmp_path: Path, scenario: Scenario, errors: tuple[int, ...], for_ever: bool) -> None:
    """Disturb a save at each of its calls in turn, with each error in turn, and look at what it leaves."""
    scenario.prepare(tmp_path / "before")
    untouched = read_all(tmp_path / "before")
    root = tmp_path / "run"
    for first in itertools.count(1):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "before", root)
        met: list[int] = []
        raised: list[str] = []
        caught = None
        error = errors[first % len(errors)]
        with at_each_call(fail_from(first, error, for_ever=for_ever, met=met, raised=raised)):
            try:
                scenario.disturb(root)
            except StorageError as storage_error:
                caught = storage_error
        if first > len(met):  # the save ended before its turn to fail came
            break
        if not raised:
            continue
        newest = value_of(root)
        assert newest in scenario.allowed, first
        if newest != scenario.disturbed or caught is None:
            # Only a read of another checkpoint may fail without ending the save: that one then counts as damaged.
            assert caught is not None or raised == ["open"] and newest == scenario.disturbed, (first, raised)
        if caught is not None:
            assert "bytes free" in str(caught) and str(root) in str(caught) and os.strerror(error) in str(caught)
        if newest != scenario.disturbed and not for_ever:
            assert read_all(root) == untouched, (first, raised)
        assert for_ever or not any(name.startswith(".tmp") for name in litter_of(root)), (first, raised)
        sweep(root)
        assert value_of(root) == newest and not litter_of(root)
    assert first > 20


@pytest.mark.usefixtures("no_waiting_for_the_disk")
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_disk_that_fails_at_any_system_call_is_a_storage_error(
    tmp_path: Path, scenario: Scenario, for_ever: bool
) -> None:
    check_failing_disk(tmp_path, scenario, tuple(ERRORS.values()), for_ever)


@pytest.mark.slow
@pytest.mark.usefixtures("no_waiting_for_the_disk")
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_every_error_of_a_disk_at_every_system_call_is_a_storage_error(
    tmp_path: Path, scenario: Scenario, error: int, for_ever: bool
) -> None:
    check_failing_disk(tmp_path, scenario, (error,), for_ever)


def test_a_file_size_limit_is_a_storage_error_and_the_previous_stays(tmp_path: Path) -> None:
    previous = save(tmp_path, 1)
    before = read_all(previous)
    large = {"model": {"weight": torch.zeros(100_000)}, "optimizer": {"exp_avg": torch.zeros(200_000)}}

    def save_limited(limit: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        with pytest.raises(StorageError, match="File too large.*bytes free.*intact"):
            save_checkpoint(tmp_path, 2, large, {"text": "x" * 900_000})

    for limit in (0, 1, 100, 1000, 399_999, 500_000, 800_050, 850_000):  # in the tensors, then in state.json
        assert run_in_child(partial(save_limited, limit)) == 0, limit
        assert [path.name for path in tmp_path.iterdir()] == [previous.name] and read_all(previous) == before
    assert value_of(tmp_path) == (1, 1.0)


@pytest.mark.slow
def test_a_hundred_kills_in_a_loop_of_saves_leave_two_whole_checkpoints(tmp_path: Path) -> None:
    draws = random.Random(2)
    save(tmp_path, 1)
    save(tmp_path, 2)
    num_disturbed = 0
    for _ in range(100):
        start = load_newest(tmp_path)
        assert start is not None

        def save_until_killed(step: int, seconds: float) -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the system then ends the process at once, as SIGKILL would
            signal.setitimer(signal.ITIMER_REAL, seconds)
            while True:
                step += 1
                save(tmp_path, step)

        assert run_in_child(partial(save_until_killed, start.step, draws.uniform(0.001, 0.03))) == -signal.SIGALRM
        names = steps_of(tmp_path)
        for name in names:
            verify_folder(tmp_path / name)
        newest = value_of(tmp_path)
        assert len(names) >= 2 and newest is not None and newest[0] >= start.step
        num_disturbed += bool(litter_of(tmp_path))
        sweep(tmp_path)
        assert not litter_of(tmp_path)
    assert num_disturbed >= 20


# --- litter and the lock


def test_a_sweep_removes_litter_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".tmp-12-abc", ".del-0123456789abcdef", ".del-0123456789abcdef-step-00000001"):
        shutil.copytree(tmp_path / "step-00000001", tmp_path / name)
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("")
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "victim")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001", ".lock", ".hidden", "victim", ".tmp-link"}
    assert (tmp_path / "victim" / "file").exists()
    sweep(tmp_path / "nowhere")


def test_a_sweep_gives_back_what_was_never_replaced(tmp_path: Path) -> None:
    aside = tmp_path / ".del-0123456789abcdef-step-00000001"
    save(tmp_path, 1).rename(aside)
    assert value_of(tmp_path) == (1, 1.0)
    sweep(tmp_path)
    assert steps_of(tmp_path) == ["step-00000001"] and not litter_of(tmp_path)
    (tmp_path / "step-00000001" / "state.json").unlink()
    (tmp_path / "step-00000001").rename(aside)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_in_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    def try_to_lock() -> None:
        with (
            pytest.raises(UserError, match=f"process {os.getppid()} on host {socket.gethostname()}"),
            lock_run(tmp_path / "run"),
        ):
            pass

    with lock_run(tmp_path / "run"):
        assert run_in_child(try_to_lock) == 0
        with pytest.raises(UserError, match="in use"), lock_run(tmp_path / "run"):
            pass
        assert run_in_child(try_to_lock) == 0  # a refusal does not free it
    with lock_run(tmp_path / "run"), lock_run(tmp_path / "other"):
        pass


def test_a_lock_is_freed_by_an_error_inside(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), lock_run(tmp_path):
            raise KeyError


def test_a_killed_run_does_not_block_the_next_even_if_its_worker_lives_on(tmp_path: Path) -> None:
    ready, tell = os.pipe()
    wait, hold = os.pipe()

    def run() -> None:
        with lock_run(tmp_path):
            if os.fork() == 0:
                os.write(tell, str(os.getpid()).encode())
                os.close(hold)
                os.read(wait, 1)  # a worker that lives until the test lets go
                os._exit(0)
            os.close(tell)
            os.kill(os.getpid(), signal.SIGKILL)

    assert run_in_child(run) == -signal.SIGKILL
    worker = int(os.read(ready, 20))
    os.kill(worker, 0)
    with lock_run(tmp_path):
        pass
    for descriptor in (hold, wait, ready, tell):
        os.close(descriptor)


@pytest.mark.parametrize("plant", ["link", "folder"])
def test_a_lock_follows_no_link(tmp_path: Path, plant: str) -> None:
    (tmp_path / "victim").write_text("precious")
    if plant == "link":
        (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    else:
        (tmp_path / ".lock").mkdir()
    with pytest.raises(StorageError), lock_run(tmp_path):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_file_system_without_locks_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(checkpoint.fcntl, "flock", refuse)
    with lock_run(tmp_path):
        pass
    assert "without locks" in capsys.readouterr().err
