"""The authors' checkpoints in all their wrappings, and what is none."""

import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.io import savemat
from torch import nn

from lowlight_iqa import Card, Metric, WeightsNotFound, create_metric, registry
from lowlight_iqa.cli.main import main
from lowlight_iqa.weights import checkpoint
from lowlight_iqa.weights.checkpoint import read_checkpoint
from lowlight_iqa.weights.files import CONFIG, WEIGHTS, load_strictly

CARD = Card(
    name="toy",
    summary="a metric with a checkpoint",
    source="test",
    lower_better=False,
    score_range=(0.0, 1.0),
    license="MIT",
    checkpoint="toy_v*_ep*.pth",
    origin="nowhere",
)


class Toy(Metric):
    def __init__(self, card, layer, offset=0.0):
        super().__init__(card)
        self.layer, self.offset = layer, offset
        self.eval().requires_grad_(False)

    @classmethod
    def from_weights(cls, loaded):
        return cls.from_tensors(loaded.card, loaded.tensors, **loaded.config)

    @classmethod
    def from_tensors(cls, card, tensors, offset=0.0):
        metric = cls(card, nn.Linear(3, 1), offset)
        load_strictly(metric, tensors)
        return metric

    def score_batch(self, x, reference=None):
        return self.layer(x.mean((2, 3)))[:, 0] + self.offset

    def weight_config(self):
        return {"offset": self.offset}


class ToyWithMat(Toy):
    @classmethod
    def from_tensors(cls, card, tensors, mat=None):
        if mat is None:
            raise ValueError("toy-mat needs its .mat")
        return super().from_tensors(card, tensors, float(mat["label"].mean()))

    @classmethod
    def from_weights(cls, loaded):
        return Toy.from_tensors.__func__(cls, loaded.card, loaded.tensors, **loaded.config)


def convert(name, source, out, mat=None, **numbers):
    card, build = registry.get_card(name), registry.get_class(name).from_tensors
    return checkpoint.convert(card, build, source, out, mat, numbers)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setattr(registry, "_entries", {**registry._table()})
    registry.register(CARD)(Toy)
    registry.register(Card(**{**vars(CARD), "name": "toy-mat"}))(ToyWithMat)


TENSORS = {"layer.weight": torch.tensor([[0.1, 0.2, 0.3]]), "layer.bias": torch.tensor([0.25])}
X = torch.full((1, 3, 40, 40), 0.5)
SCORE = 0.55

WRAPPED = {
    "bare": TENSORS,
    "under state_dict": {"epoch": 3, "state_dict": TENSORS},
    "under model": {"model": TENSORS, "optimizer": {"lr": 0.1}},
    "of data-parallel training": {f"module.{key}": value for key, value in TENSORS.items()},
    "with module inside": {key.replace(".", ".module."): value for key, value in TENSORS.items()},
    "in double": {key: value.double() for key, value in TENSORS.items()},
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrappings(case, tmp_path):
    torch.save(WRAPPED[case], tmp_path / "x.pth")
    folder = convert("toy", tmp_path / "x.pth", tmp_path / "out")
    assert {file.name for file in folder.iterdir()} >= {WEIGHTS, CONFIG, "README.md"}
    assert load_file(folder / WEIGHTS).keys() == TENSORS.keys()
    metric = create_metric("toy", weights=folder)
    assert metric(X).item() == pytest.approx(SCORE)
    assert metric.card.checkpoint == "x.pth"


def test_only_the_first_module_is_removed(tmp_path):
    torch.save({"a.module.module.b": torch.ones(1)}, tmp_path / "x.pth")
    assert list(read_checkpoint(tmp_path / "x.pth")) == ["a.module.b"]


def write_splits(folder, numbers, name="toy"):
    folder.mkdir()
    for number in numbers:
        stem = f"{name}_v{number}_ep10_SRCC0.9{number}"
        torch.save({**TENSORS, "layer.bias": torch.tensor([0.1 * number])}, folder / f"{stem}.pth")
        savemat(folder / f"{stem}.mat", {"label": np.full((1, 5), float(number))})
    return folder


def test_ten_splits_by_their_names(tmp_path):
    source = write_splits(tmp_path / "in", range(10))
    torch.save(TENSORS, source / "another_v3_ep1.pth")
    folder = convert("toy", source, tmp_path / "out")
    names = [f"v{number}" for number in range(10)]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == names
    for number, name in enumerate(names):
        metric = create_metric("toy", weights=folder / name)
        assert metric(X).item() == pytest.approx(0.3 + 0.1 * number)
    with pytest.raises(ValueError, match="several splits"):  # this metric takes one
        create_metric("toy", weights=folder)


def test_one_split_in_a_folder_is_a_plain_directory(tmp_path):
    folder = convert("toy", write_splits(tmp_path / "in", [4]), tmp_path / "out")
    assert create_metric("toy", weights=folder)(X).item() == pytest.approx(0.7)


def test_folders_that_are_not_clear(tmp_path):
    source = write_splits(tmp_path / "in", [1, 2])
    with pytest.raises(ValueError, match=r"holds no toy_v\*_ep\*\.pth"):
        convert("toy", tmp_path, tmp_path / "out")
    shutil.copy(source / "toy_v1_ep10_SRCC0.91.pth", source / "toy_v1_ep30_SRCC0.92.pth")
    with pytest.raises(ValueError, match=r"toy_v1_ep10.* and toy_v1_ep30.* are of one split"):
        convert("toy", source, tmp_path / "out")
    (source / "toy_v1_ep30_SRCC0.92.pth").rename(source / "toy_vx_ep1.pth")
    with pytest.raises(ValueError, match="holds no split"):
        convert("toy", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_extra_and_wrong_tensors_are_listed(tmp_path):
    wrong = {"layer.weight": torch.ones(1, 4), "extra.weight": torch.ones(1), "extra.bias": torch.ones(1)}
    torch.save(wrong, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth") as caught:
        convert("toy", tmp_path / "x.pth", tmp_path / "out")
    for words in ("missing layer.bias", "unexpected extra.weight", "unexpected extra.bias", "(1, 4), not (1, 3)"):
        assert words in str(caught.value)
    torch.save({f"k{index}": torch.ones(1) for index in range(50)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="and 32 more"):
        convert("toy", tmp_path / "x.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("legacy", [True, False])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, legacy):
    mark, path = tmp_path / "mark", tmp_path / "evil.pth"
    content = {**TENSORS, "extra": Evil(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"evil\.pth is refused: loading it would run \w+\.system"):
        convert("toy", path, tmp_path / "out")
    path.write_bytes(pickle.dumps(content["extra"]))
    with pytest.raises(ValueError, match=r"evil\.pth"):
        convert("toy", path, tmp_path / "out")
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # what a plain pickle.load would have done
    assert mark.exists()


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>log in</html>", b"PK\x03\x04junk", b"\x80\x02}q\x00.", b"\x00" * 1000]
)
def test_what_is_no_checkpoint(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pth .*(download it again|give the file)"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_checkpoint_cut_short(tmp_path):
    torch.save({"a": torch.ones(50_000)}, tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "x.pth").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match=r"x\.pth is cut short"):
            read_checkpoint(tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [([1, 2], "holds a list"), ({}, "not a state dict"), ({"a": torch.ones(1), "epoch": 3}, r"epoch \(int\)")],
)
def test_other_contents(tmp_path, content, words):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=words):
        read_checkpoint(tmp_path / "x.pth")


def test_the_mat_is_found_by_its_name(tmp_path):
    source = write_splits(tmp_path / "in", [2, 3])
    convert("toy-mat", source, tmp_path / "out")
    assert create_metric("toy-mat", weights=tmp_path / "out" / "v3").offset == 3
    (tmp_path / "mats").mkdir()
    for file in source.glob("*.mat"):
        file.rename(tmp_path / "mats" / file.name)
    with pytest.raises(ValueError, match=r"toy_v2_.*\.pth: toy-mat needs its \.mat"):
        convert("toy-mat", source, tmp_path / "out2")
    convert("toy-mat", source, tmp_path / "out2", tmp_path / "mats")
    assert create_metric("toy-mat", weights=tmp_path / "out2" / "v2").offset == 2

    one = tmp_path / "mats" / "toy_v3_ep10_SRCC0.93.mat"
    folder = convert("toy-mat", source / "toy_v2_ep10_SRCC0.92.pth", tmp_path / "out3", one)
    assert create_metric("toy-mat", weights=folder).offset == 3
    with pytest.raises(ValueError, match="there are 2 checkpoints"):
        convert("toy-mat", source, tmp_path / "out4", one)
    with pytest.raises(ValueError, match="leave --mat out"):
        convert("toy", source, tmp_path / "out4", one)
    one.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"toy_v3_.*\.mat is damaged"):
        convert("toy-mat", source, tmp_path / "out4", tmp_path / "mats")
    one.unlink()
    with pytest.raises(FileNotFoundError):
        convert("toy-mat", source, tmp_path / "out4", tmp_path / "mats")


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOWLIGHT_IQA_HOME", str(tmp_path / "store"))
    path = tmp_path / "x.pth"
    torch.save(TENSORS, path)
    with pytest.raises(WeightsNotFound, match="nowhere"):
        create_metric("toy")
    assert main(["convert", "toy", str(path), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    assert main(["convert", "toy", str(path), "--install"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'store' / 'weights' / 'toy'}\n"
    assert create_metric("toy")(X).item() == pytest.approx(SCORE)

    for arguments, words in (
        (["convert", "niqe", str(path), "--install"], "convert is for"),
        (["convert", "toi", str(path), "--install"], "did you mean 'toy'"),
        (["convert", "toy", str(tmp_path / "y.pth"), "--install"], "y.pth"),
        (["score", "x.png", "-m", "toy", "--weights", str(path)], "lowlight-iqa convert"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert words in captured.err
        assert len(captured.err.splitlines()) == 1
    shutil.rmtree(tmp_path / "store")
    assert main(["convert", "toy", str(path)]) == 0  # installs without being told
    assert capsys.readouterr().out == f"{tmp_path / 'store' / 'weights' / 'toy'}\n"
