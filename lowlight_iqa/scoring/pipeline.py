"""The pipeline: decode ahead in threads, group by size into batches, score on the device, return records in order.

    sources -> decode (workers) -> group by size -> score (CPU: workers, GPU: one at a time) -> records in order

Which pictures share a batch depends only on their order and sizes, never on timing, so two runs give the same numbers.
The number of pictures in flight is limited: memory does not grow with the number of pictures.
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..images import FORMATS, Picture, read_image
from ..metric import Assessment, Metric, check_reference
from ..registry import create_metric, get_card
from .sources import Input, Source, digest, find_sources

if TYPE_CHECKING:
    from typing_extensions import Self

References: TypeAlias = Union[str, "os.PathLike[str]", Sequence[Picture]]
Known: TypeAlias = Callable[[str], "Record | None"]

LARGE = 24_000_000  # pixels; a larger picture is decoded and scored alone, with all cores
SHARE_OF_MEMORY = 0.25  # for decoded pictures
BYTES_PER_PIXEL = 12  # three float32
WAITING = 8  # batches that the oldest picture may wait for others of its size
TOGETHER = 16  # batch size of metrics that load their parts for every batch
BATCH = {"cpu": 1, "cuda": 16}  # on a CPU a batch is no faster than its pictures one by one, and takes more memory


@dataclass(frozen=True)
class Record:
    """The result for one picture."""

    path: str
    results: Mapping[str, Assessment] = field(default_factory=dict)  # by metric, without maps
    error: str = ""  # reason, if there are no results
    size: int = -1  # bytes of the file; -1 if unknown
    modified: int = -1  # nanoseconds since 1970; -1 if unknown
    digest: str = ""  # of the file and, if it was scored with one, its dark input; "" if not requested
    luma: float = math.nan  # mean, 0 to 255, BT.601; NaN if not requested


def score(
    pictures: Input | Iterable[Input],
    metrics: str | Metric | Iterable[str | Metric] = ("leiq",),
    *,
    references: References | None = None,
    attributes: bool = False,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    workers: int | None = None,
    batch: int | None = None,
) -> Iterator[Record]:
    """Score any number of pictures with any number of metrics; each picture is decoded once.

    Args:
        pictures: one or several pictures, folders, globs, lists, tar shards, Parquet files (see ``scoring.sources``).
            An iterator is read only a little ahead of the scoring.
        metrics: names, or metrics that exist already.
        references: for metrics that need one: the dark input of all, a folder with files of the same names, or a
            sequence with one for each picture.
        attributes: also return each metric's attributes (light, noise, ...).
        weights: as for ``create_metric``, if one metric is given by name.
        device: as for ``create_metric``, for metrics given by name.
        workers: threads that decode and, on a CPU, score; None for torch's number of threads. With one worker and
            batches of one, scores are bit-equal to ``metric(path)``; otherwise equal up to rounding.
        batch: pictures of one size that are scored together; None for 1 on a CPU and 16 on a GPU.

    Returns:
        An iterator of one ``Record`` for each picture, in the order given. For a picture that cannot be scored the
        record holds an error.

    Raises:
        ValueError: options that exclude each other.
        WeightsNotFound: the weights are not on this machine.
    """
    made = make_metrics([metrics] if isinstance(metrics, (str, Metric)) else metrics, weights, device)
    if references is not None and not any(metric.card.needs_reference for metric in made):
        raise ValueError(f"{', '.join(m.card.name for m in made)} does not take references; leave them out")
    work = Work(made, references, attributes)
    return run(find_sources(as_inputs(pictures)), work, workers=workers, batch=batch)


def as_inputs(pictures: Input | Iterable[Input]) -> Iterable[Input]:
    """Return one picture as a list, and several as they are."""
    single = isinstance(pictures, (str, os.PathLike, Tensor, Source)) or not isinstance(pictures, Iterable)
    if single or hasattr(pictures, "read") or hasattr(pictures, "__array__"):  # a file, an array
        return [cast(Input, pictures)]
    return cast(Iterable[Input], pictures)


def make_metrics(
    metrics: Iterable[str | Metric], weights: str | Path | None, device: str | torch.device | None
) -> list[Metric]:
    """Create the metrics given by name; return all of them.

    Raises:
        ValueError: no metric, an unknown name, or weights for other than one name.
    """
    wanted = list(metrics)
    names = [name for name in wanted if not isinstance(name, Metric)]
    if not wanted:
        raise ValueError("no metric is given; name one, such as leiq")
    if weights is not None and len(names) != 1:
        raise ValueError(
            f"weights belong to one metric's name, not to {', '.join(names) or 'metrics that are made already'}; "
            "score with one at a time"
        )
    for name in names:
        get_card(name)  # raises before weights are loaded, if the name is wrong

    made: dict[str, Metric] = {}
    for metric in wanted:
        ready = metric if isinstance(metric, Metric) else create_metric(metric, weights=weights, device=device)
        made.setdefault(ready.card.name, ready)
    return list(made.values())


@dataclass(frozen=True)
class Work:
    """What is computed for each picture."""

    metrics: Sequence[Metric]
    references: References | None = None
    attributes: bool = False
    luma: bool = False
    digest: bool = False
    known: Known | None = None  # looks up results of some or all metrics by digest

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric.card.needs_reference and self.references is None:
                raise ValueError(f"{metric.card.name} compares with the dark input; give references")
        devices = {str(metric.device) for metric in self.metrics}
        if len(devices) > 1:
            raise ValueError(f"the metrics are on {' and '.join(sorted(devices))}; move them to one device")

    @property
    def device(self) -> torch.device:
        """The device on which the metrics compute."""
        return self.metrics[0].device

    @property
    def concurrent(self) -> bool:
        """Whether several threads may score at the same time."""
        return all(metric.concurrent for metric in self.metrics)

    def reference(self, source: Source, place: int) -> Picture:
        """Return the dark input of the picture at an index.

        Raises:
            ValueError: there is none.
        """
        if isinstance(self.references, (str, os.PathLike)):
            path = os.fspath(self.references)
            return os.path.join(path, os.path.basename(source.name)) if os.path.isdir(path) else path
        references = self.references or ()
        if place >= len(references):
            raise ValueError(f"there are {len(references)} references, none for picture {place + 1}")
        return references[place]


@dataclass
class Decoded:
    """A decoded picture: for each metric its tensor (3, h, w) and that of the reference; or a finished record."""

    place: int
    source: Source
    record: Record
    tensors: list[tuple[Tensor, ...]] = field(default_factory=list)  # empty for a metric whose score is known
    alone: bool = False  # too large to be decoded beside others; not decoded yet
    ready: bool = False

    @property
    def shapes(self) -> tuple[object, ...]:
        """What pictures of one batch must have in common."""
        return tuple(tuple((x.shape, x.dtype) for x in tensors) for tensors in self.tensors)

    @property
    def bytes(self) -> int:
        """Memory of the tensors; one that metrics share counts once."""
        unique = {id(x): x.nbytes for tensors in self.tensors for x in tensors}
        return sum(unique.values())


def run(
    sources: Iterable[Source],
    work: Work,
    *,
    workers: int | None = None,
    batch: int | None = None,
    processes: bool = False,
) -> Iterator[Record]:
    """Score sources; see ``score``.

    Args:
        sources: of the pictures.
        work: what is done to each.
        workers: as for ``score``.
        batch: as for ``score``.
        processes: let the workers be processes where that is safe and pays: on a CPU, one picture at a time, under
            Linux, and while this process has no other thread.

    Raises:
        ValueError: a number of workers or a batch size outside 1 to 1024.
    """
    if workers is None:
        workers = torch.get_num_threads() if work.device.type == "cpu" else min(8, os.cpu_count() or 1)
    if batch is None:
        batch = BATCH.get(work.device.type, 1) if work.concurrent else TOGETHER
    for what, number in (("workers", workers), ("batch", batch)):
        if not isinstance(number, int) or not 1 <= number <= 1024:
            raise ValueError(f"{what} is {number!r}; give a number from 1 to 1024")
    simple = work.device.type == "cpu" and work.concurrent and work.known is None and batch == 1 < workers
    if processes and simple and sys.platform == "linux" and threading.active_count() == 1:
        return _in_processes(iter(sources), work, workers)
    return _Pipeline(work, workers, batch).records(iter(sources))


Job: TypeAlias = tuple[int, Source]


class _Scored(Dataset["tuple[Job, Record | None]"]):
    """What becomes of each picture, or None for one that is to be scored alone."""

    def __init__(self, work: Work, large: int) -> None:
        self.work, self.large = work, large

    def __getitem__(self, job: Job) -> tuple[Job, Record | None]:
        return job, score_one(self.work, *job, self.large)


def _in_processes(sources: Iterator[Source], work: Work, workers: int) -> Iterator[Record]:
    """Score each picture in one of several processes, which are there when this returns.

    Threads of one process wait for Python's lock between operations, hand-crafted metrics half of their time.
    """
    scored = _Scored(work, min(LARGE, largest(workers)))
    jobs = cast("torch.utils.data.Sampler[Any]", enumerate(sources))
    loader = DataLoader(
        scored,
        None,
        sampler=jobs,
        num_workers=workers,
        multiprocessing_context="fork",
        worker_init_fn=partial(_end_with, os.getpid()),
    )
    # Torch's handler would raise wherever this process is when a worker ends; next() notices within 5 s without it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    results = iter(loader)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    return _received(results, work)


def _end_with(parent: int, worker: int) -> None:
    """Have this process killed when its parent ends; torch does not notice a parent that is gone already."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _received(results: Iterator[tuple[Job, Record | None]], work: Work) -> Iterator[Record]:
    try:
        for job, record in results:
            yield record or cast(Record, score_one(work, *job, None))
    except RuntimeError as error:
        raise OSError(
            f"a process that scores was ended ({str(error).splitlines()[0]}), often for want of memory; "
            "use fewer workers, and resume what was written"
        ) from None


def score_one(work: Work, place: int, source: Source, large: int | None) -> Record | None:
    """Decode and score one picture; None, undecoded, if it has more than ``large`` pixels."""
    item = decode(work, place, source, large)
    if item.alone:
        return None
    return item.record if item.ready else score_batch(work, [item])[0][1]


class _Pipeline:
    """The threads and queues of one run."""

    def __init__(self, work: Work, workers: int, batch: int) -> None:
        self.work, self.batch = work, batch
        scorers = workers if work.device.type == "cpu" and work.concurrent else 1
        self.ahead = 2 * workers + (batch if batch > 1 else 0)
        self.queued = 2 * scorers  # batches
        self.large = min(LARGE, largest(self.ahead + scorers + (WAITING if batch > 1 else 0)))
        self.threads = torch.get_num_threads()
        each = max(1, self.threads // workers)  # of torch's threads
        self.decoders = ThreadPoolExecutor(workers, "decode", _use_threads, (each if workers > 1 else None,))
        self.scorers = ThreadPoolExecutor(scorers, "score", _use_threads, (each if scorers > 1 else None,))

        self.decoding: deque[Future[Decoded]] = deque()
        self.groups: dict[tuple[object, ...], list[Decoded]] = {}  # by shapes, the oldest first
        self.scoring: deque[Future[list[tuple[int, Record]]]] = deque()
        self.done: dict[int, Record] = {}

    def records(self, sources: Iterator[Source]) -> Iterator[Record]:
        """Yield the records in order."""
        place = oldest = 0
        try:
            while True:
                while len(self.decoding) < self.ahead and (source := next(sources, None)) is not None:
                    self.decoding.append(self.decoders.submit(decode, self.work, place, source, self.large))
                    place += 1
                if not self.decoding:
                    break
                self.take(self.decoding.popleft().result())
                while oldest in self.done:
                    yield self.done.pop(oldest)
                    oldest += 1

            self.drain()
            while oldest in self.done:
                yield self.done.pop(oldest)
                oldest += 1
        finally:
            self.decoders.shutdown(wait=False, cancel_futures=True)
            self.scorers.shutdown(wait=False, cancel_futures=True)
            torch.set_num_threads(self.threads)  # the default of threads that start later

    def take(self, item: Decoded) -> None:
        """Add a decoded picture to its group, and score the groups that are due."""
        if item.ready:
            self.done[item.place] = item.record
        elif item.alone:
            self.drain()
            self.done[item.place] = cast(Record, score_one(self.work, item.place, item.source, None))
        else:
            group = self.groups.setdefault(item.shapes, [])
            group.append(item)
            if len(group) == self.batch:
                self.submit(item.shapes)

        # Records are in order, so all wait for the oldest picture; and the waiting ones take memory.
        while self.groups:
            first = min(self.groups, key=lambda shapes: self.groups[shapes][0].place)
            waiting = sum(item.bytes for group in self.groups.values() for item in group)
            late = item.place - self.groups[first][0].place >= WAITING * self.batch
            if not late and waiting <= WAITING * BYTES_PER_PIXEL * self.large:
                break
            self.submit(first)

    def submit(self, shapes: tuple[object, ...]) -> None:
        """Queue a group for scoring, once the queue has room."""
        while len(self.scoring) >= self.queued:
            self.done |= dict(self.scoring.popleft().result())
        self.scoring.append(self.scorers.submit(score_batch, self.work, self.groups.pop(shapes)))
        while self.scoring and self.scoring[0].done():
            self.done |= dict(self.scoring.popleft().result())

    def drain(self) -> None:
        """Score everything that is waiting."""
        for shapes in list(self.groups):
            self.submit(shapes)
        while self.scoring:
            self.done |= dict(self.scoring.popleft().result())


def largest(pictures: int) -> int:
    """Return the pixels of the largest picture of which so many fit into memory at once."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        memory = 8 * 2**30
    return int(SHARE_OF_MEMORY * memory / pictures / BYTES_PER_PIXEL)


def _use_threads(count: int | None) -> None:
    if count is not None:
        torch.set_num_threads(count)


# Decoding


class _Named(io.BytesIO):
    """The content of a file with its name, for errors."""

    name = ""

    @classmethod
    def of(cls, content: bytes, name: str) -> Self:
        file = cls(content)
        file.name = name
        return file


def decode(work: Work, place: int, source: Source, large: int | None) -> Decoded:
    """Read one picture and prepare it for each metric; one with more pixels than ``large`` is only marked ``alone``."""
    record = Record(source.name, size=source.size, modified=source.modified, error=source.error)
    if source.error:
        return Decoded(place, source, record, ready=True)
    try:
        picture = source.picture
        hashed = work.digest or work.known is not None
        if hashed and isinstance(picture, (str, os.PathLike)):
            picture = Path(picture).read_bytes()
        if isinstance(picture, bytes):
            if hashed:
                record = recall(work, place, source, picture, record)
                if len(record.results) == len(work.metrics):
                    return Decoded(place, source, record, ready=True)
            picture = _Named.of(picture, source.name)
        if large is not None and pixels_of(picture) > large:
            return Decoded(place, source, record, alone=True)

        pixels = read_image(picture)
        if work.luma:
            record = replace(record, luma=mean_luma(pixels))
        return Decoded(place, source, record, prepare(work, place, source, pixels, record.results))
    except Exception as error:  # the other pictures are still scored
        return Decoded(place, source, failed(record, error), ready=True)


def recall(work: Work, place: int, source: Source, picture: bytes, record: Record) -> Record:
    """Add the digest to a record, and results that are known already."""
    if work.known is None:
        return replace(record, digest=digest(picture))
    contents = [picture]
    if any(metric.card.needs_reference for metric in work.metrics):
        dark = work.reference(source, place)
        if not isinstance(dark, (str, os.PathLike)):
            return record  # without a digest: never cached
        contents.append(Path(dark).read_bytes())

    record = replace(record, digest=digest(*contents))
    known = work.known(record.digest)
    return record if known is None else replace(record, results=known.results, luma=known.luma)


def failed(record: Record, error: Exception) -> Record:
    """Return the record of a picture that cannot be scored."""
    return replace(record, results={}, error=in_words(record.path, error))


def pixels_of(picture: Any) -> int:
    """Return the pixels of a file according to its header; 0 if they are unknown or the picture is in memory."""
    from PIL import Image

    if not isinstance(picture, (str, os.PathLike, io.BytesIO)):
        return 0
    Image.init()
    try:
        with Image.open(picture, formats=[known for known in FORMATS if known in Image.OPEN]) as image:
            return int(image.width * image.height)
    except Exception:  # read_image will say what is wrong with it
        return 0
    finally:
        if isinstance(picture, io.BytesIO):
            picture.seek(0)


def mean_luma(pixels: Tensor) -> float:
    """Return the mean luma, 0 to 255, of a picture (3, H, W)."""
    red, green, blue = (255 * pixels.double().mean((1, 2))).tolist()
    return float(0.299 * red + 0.587 * green + 0.114 * blue)


def prepare(
    work: Work, place: int, source: Source, pixels: Tensor, known: Mapping[str, Assessment]
) -> list[tuple[Tensor, ...]]:
    """Return each metric's input (3, h, w), followed by the reference of the same shape if the metric needs one.

    A metric whose score is known gets an empty tuple.
    """
    given = [(source.picture, pixels)]
    if any(metric.card.needs_reference for metric in work.metrics):
        dark = work.reference(source, place)
        given.append((dark, read_image(dark)))

    tensors: list[tuple[Tensor, ...]] = []
    for metric in work.metrics:
        if metric.card.name in known:
            tensors.append(())
            continue

        # Tensors given by the caller are not preprocessed.
        x, *rest = (read if isinstance(origin, Tensor) else metric.preprocess(read) for origin, read in given)
        needed = [check_reference(x, reference) for reference in rest] if metric.card.needs_reference else []
        tensors.append((x, *needed))
    return tensors


def in_words(name: str, error: Exception) -> str:
    """Say what is wrong with a picture, in one line with its name and a remedy."""
    text = str(error)
    if isinstance(error, MemoryError) or "not enough memory" in text or "allocate memory" in text:
        text = "takes more memory than there is; scale it down, or use fewer workers"
    elif isinstance(error, torch.cuda.OutOfMemoryError):
        text = "takes more memory than the GPU has; scale it down, or use --device cpu"
    elif isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"cannot be opened: {error.strerror.lower()}"
    elif not isinstance(error, (OSError, ValueError)):
        text = f"{type(error).__name__}: {text}"
    text = " ".join(text.split())
    return text if name and name in text else f"{name}: {text}"


# Scoring


def score_batch(work: Work, group: Sequence[Decoded]) -> list[tuple[int, Record]]:
    """Score pictures of one size; if that fails, score each by itself."""
    try:
        results = assess(work, [item.tensors for item in group])
    except Exception as error:
        if len(group) > 1:
            _free_memory(work.device)
            return [pair for item in group for pair in score_batch(work, [item])]
        (item,) = group
        return [(item.place, failed(item.record, error))]
    return [
        (item.place, replace(item.record, results={**item.record.results, **found}))
        for item, found in zip(group, results, strict=True)
    ]


def assess(work: Work, pictures: Sequence[Sequence[tuple[Tensor, ...]]]) -> list[dict[str, Assessment]]:
    """Return the results of each picture by metric, for those metrics that its tensors are there for."""
    results: list[dict[str, Assessment]] = [{} for _ in pictures]
    stacks: dict[tuple[int, ...], Tensor] = {}  # shared by metrics with the same input

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        key = tuple(map(id, tensors))
        if key not in stacks:
            stacks[key] = torch.stack(list(tensors)).to(work.device)
        return stacks[key]

    with torch.inference_mode():
        for number, metric in enumerate(work.metrics):
            if not pictures[0][number]:
                continue  # its score is known for every picture of the batch

            # Pictures and, if needed, references: (N, 3, h, w) each.
            x, *rest = (stack(column) for column in zip(*(tensors[number] for tensors in pictures), strict=True))
            if work.attributes and not metric.card.needs_reference:
                found = [replace(metric.assess(one, maps=False), words=()) for one in x]
            else:
                found = [Assessment(value) for value in metric(x, *rest).tolist()]
            for result, assessment in zip(results, found, strict=True):
                if not math.isfinite(assessment.score):
                    raise ValueError(f"{metric.card.name} gives {assessment.score} for this picture")
                result[metric.card.name] = assessment
    return results


def _free_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
