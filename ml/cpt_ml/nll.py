"""Negative log-likelihood of documents under a causal model: score-ppl, evaluate-perplexity and the trainer share it.

Shape suffixes: B windows of a batch, T tokens of a window, N scored targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from cpt_ml.errors import BadRequest

if TYPE_CHECKING:
    from cpt_ml.world import World

B = TypeVar("B")
R = TypeVar("R")
TokenIds = npt.NDArray[np.uint32]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]

LOGIT_ROWS = 1024  # of fp32 logits at a time: larger blocks leave the cache, smaller ones starve a GPU


@dataclass(frozen=True)
class Window:
    """Inputs [start, end) of one document; predicts tokens start+1 … end, of which those from `first_target` count."""

    doc: int
    start: int
    end: int
    first_target: int

    @property
    def length(self) -> int:
        return self.end - self.start


def document_nll(  # noqa: PLR0917
    model: Any,
    docs_tokens: Sequence[TokenIds],
    window_tokens: int,
    stride_tokens: int,
    max_tokens: int,
    batch_tokens: int,
    device: Any = "cpu",
    beat: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> list[tuple[float, int]]:
    """Summed negative log-likelihood and number of scored tokens of each document, in the order given.

    Each document is cut to `max_tokens`; its first token is never scored, every other one exactly once, with at least
    `window_tokens - stride_tokens` tokens before it where the document has them. The sum is in nats (float64 over
    float32 terms); (0.0, 0) where a document has fewer than two tokens. `model` is a Hugging Face causal model whose
    logits are a linear head on its decoder. Windows are padded on the right and attention is causal, so what else is in
    a batch changes a score by float32 rounding only; on a CPU each batch is computed by one of torch's threads, so the
    number of threads changes nothing. `beat` gets (tokens done, tokens in all) after every batch. Raises
    BadRequest when the stride exceeds the window, or a token is outside the vocabulary.
    """
    windows = [
        w
        for i, doc in enumerate(docs_tokens)
        for w in cut_windows(i, min(len(doc), max_tokens), window_tokens, stride_tokens)
    ]
    return score_batches(model, docs_tokens, list(batches(windows, batch_tokens)), device, beat, world=world)


def score_batches(  # noqa: PLR0917
    model: Any,
    docs_tokens: Sequence[TokenIds],
    made: Sequence[Sequence[Window]],
    device: Any = "cpu",
    beat: Callable[[int, int], None] | None = None,
    logit_rows: int = LOGIT_ROWS,
    world: World | None = None,
) -> list[tuple[float, int]]:
    """document_nll of windows that are batched already, widest window of a batch first.

    The processes of a sharded model share the batches, in lock step, and each returns the scores of all documents.

    On a GPU the next batch is sent while one is computed. At most `logit_rows` rows of logits exist at a time, that is
    4 · logit_rows · vocabulary bytes.
    """
    import torch  # noqa: PLC0415 - seconds to import, and not every importer scores

    decoder, head = model.get_decoder(), model.get_output_embeddings()
    _check_vocabulary(docs_tokens, head.weight.shape[0])
    sums = np.zeros(len(docs_tokens), dtype=np.float64)
    counts = np.zeros(len(docs_tokens), dtype=np.int64)
    total, done = sum(w.length for batch in made for w in batch), 0
    was_training = model.training
    model.eval()

    several = world is not None and world.size > 1

    def launch(batch: Sequence[Window]) -> Callable[[], tuple[Int64s, Float32s]]:
        tokens_BT, targets_BT = _pad(batch, docs_tokens)
        scored_BT = targets_BT >= 0
        with torch.no_grad() if several else torch.inference_mode():
            hidden_BTD = decoder(input_ids=sent(tokens_BT, device), use_cache=False).last_hidden_state
            # by place, not by mask: a GPU would have to be waited for to learn how many there are
            hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, sent(np.flatnonzero(scored_BT), device))
            nll_N = _token_nll(head, hidden_ND, sent(targets_BT[scored_BT], device), logit_rows)
        docs_N = np.repeat([w.doc for w in batch], scored_BT.sum(axis=1))
        fetched = _fetching(nll_N)
        return lambda: (docs_N, fetched())

    try:
        if several:
            return _shared(model, launch, made, sums, counts, beat, world)
        for batch, (docs_N, nll_N) in zip(made, _in_order(launch, made, device), strict=True):
            np.add.at(sums, docs_N, nll_N.astype(np.float64))
            np.add.at(counts, docs_N, 1)
            done += sum(w.length for w in batch)
            if beat is not None:
                beat(done, total)
    finally:
        model.train(was_training)
    return [(float(s), int(n)) for s, n in zip(sums, counts, strict=True)]


def _shared(  # noqa: PLR0917
    model: Any,
    launch: Callable[[Sequence[Window]], Callable[[], tuple[Int64s, Float32s]]],
    made: Sequence[Sequence[Window]],
    sums: Float64s,
    counts: Int64s,
    beat: Callable[[int, int], None] | None,
    world: Any,
) -> list[tuple[float, int]]:
    """Each process scores every world.size-th batch; where one has none left it computes the last, for nothing."""
    total, done = sum(w.length for batch in made for w in batch), 0
    for first in range(0, len(made), world.size):
        mine = first + world.rank
        batch = made[min(mine, len(made) - 1)]
        # embedding, norm and head are whole in there alone
        docs_N, nll_N = model.run_inside(partial(_now, launch, batch))
        if mine < len(made):
            np.add.at(sums, docs_N, nll_N.astype(np.float64))
            np.add.at(counts, docs_N, 1)
        done += sum(w.length for batch in made[first : first + world.size] for w in batch)
        if beat is not None:
            beat(done, total)
    return [(float(s), int(n)) for s, n in zip(world.sum_array(sums), world.sum_array(counts), strict=True)]


def sent(array: npt.NDArray[Any], device: Any) -> Any:
    """A tensor on the device; to a GPU from pinned memory, without waiting."""
    import torch  # noqa: PLC0415

    tensor = torch.from_numpy(array)
    return tensor if torch.device(device).type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _fetching(tensor: Any) -> Callable[[], Float32s]:
    """Begins to bring a tensor from its device; what is returned waits for it."""
    import torch  # noqa: PLC0415

    if tensor.device.type != "cuda":
        return lambda: tensor.cpu().numpy()
    # the copy lands in pinned memory and may be read after the event alone
    here, copied = tensor.to("cpu", non_blocking=True), torch.cuda.Event()
    copied.record()

    def wait() -> Float32s:
        copied.synchronize()
        return here.numpy()

    return wait


def _in_order(launch: Callable[[B], Callable[[], R]], made: Sequence[B], device: Any) -> Iterator[R]:
    """Results in order: on a CPU a thread a batch, which wastes nothing on joining small operations; on a GPU the next
    batch is launched before the last one is waited for."""
    import torch  # noqa: PLC0415

    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu":
        waited: Callable[[], R] | None = None
        for batch in made:
            launched = launch(batch)
            if waited is not None:
                yield waited()
            waited = launched
        if waited is not None:
            yield waited()
        return
    if threads == 1:
        yield from (launch(batch)() for batch in made)
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(partial(_now, launch), made)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _now(launch: Callable[[B], Callable[[], R]], batch: B) -> R:
    return launch(batch)()


def cut_windows(doc: int, num_tokens: int, window_tokens: int, stride_tokens: int) -> Iterator[Window]:
    """Windows over a document of `num_tokens`: each token but the first is a target that counts in exactly one."""
    if not 0 < stride_tokens <= window_tokens:
        raise BadRequest(f"strideTokens is {stride_tokens}, expected 1 to windowTokens ({window_tokens})")
    start, scored_up_to = 0, 0
    while scored_up_to < num_tokens - 1:
        end = min(start + window_tokens, num_tokens - 1)
        yield Window(doc, start, end, scored_up_to + 1)
        start, scored_up_to = start + stride_tokens, end


def batches(windows: Sequence[Window], batch_tokens: int, max_padding: float = 1.0) -> Iterator[list[Window]]:
    """Windows of like length, padded size ≤ `batch_tokens`; longest first: memory runs out at once or never.

    Of a batch's padded size at most the share `max_padding` is padding.
    """
    ordered = sorted(windows, key=lambda w: (-w.length, w.doc, w.start))
    batch: list[Window] = []
    filled = 0
    for w in ordered:
        padded = (len(batch) + 1) * batch[0].length if batch else w.length
        if padded > batch_tokens or padded - filled - w.length > max_padding * padded:
            if batch:
                yield batch
            batch, filled = [], 0
        batch.append(w)
        filled += w.length
    if batch:
        yield batch


def _pad(
    batch: Sequence[Window], docs_tokens: Sequence[TokenIds]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Inputs padded with 0, and targets with −1 where nothing is scored."""
    width = batch[0].length
    tokens_BT = np.zeros((len(batch), width), dtype=np.int64)
    targets_BT = np.full((len(batch), width), -1, dtype=np.int64)
    for i, w in enumerate(batch):
        doc = docs_tokens[w.doc]
        tokens_BT[i, : w.length] = doc[w.start : w.end]
        targets_BT[i, w.first_target - w.start - 1 : w.length] = doc[w.first_target : w.end + 1]
    return tokens_BT, targets_BT


def _token_nll(head: Any, hidden_ND: Any, targets_N: Any, logit_rows: int) -> Any:
    """Cross-entropy of each target in nats, float32, with the logits of a bounded number of rows at a time."""
    import torch  # noqa: PLC0415

    parts: list[Any] = []
    for i in range(0, len(targets_N), logit_rows):
        logits_NV = head(hidden_ND[i : i + logit_rows]).float()
        target_N = logits_NV.gather(1, targets_N[i : i + logit_rows, None])[:, 0]
        max_N1 = logits_NV.amax(1, keepdim=True)
        # in place: twice as fast on a CPU as writing out log-probabilities that nobody reads
        parts.append(logits_NV.sub_(max_N1).exp_().sum(1).log_() + max_N1[:, 0] - target_N)
    return torch.cat(parts)


def _check_vocabulary(docs_tokens: Sequence[TokenIds], vocabulary: int) -> None:
    for i, doc in enumerate(docs_tokens):
        if len(doc) and int(doc.max()) >= vocabulary:
            raise BadRequest(f"document {i} has token {int(doc.max())}, but the model's vocabulary is {vocabulary}")
