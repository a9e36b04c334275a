"""Which base documents are shipped: those held out of pre-training, and those CPT replays.

Base ids carry no order, so chapters cannot be told apart. Three books are held out whole (no page of
them is pre-trained on); besides, single documents are drawn from every other public-domain source, so that
the slice stays like the base's own text. Whatever nearly copies a held-out document is not pre-trained on.
"""

from collections import defaultdict

from documents import Document, grams, seeded_order, text_bytes

WHOLE_BOOKS = (
    "GITenberg/The-Chemical-History-of-a-Candle_14474",
    "GITenberg/An-Introduction-to-Mathematics_41568",
    "standardebooks/john-stuart-mill_the-subjection-of-women",
)
# free in the USA, but author or translator died after 1955: not shipped, though pre-trained on
PROTECTED_ELSEWHERE = (
    "GITenberg/An-Elementary-Study-of-Chemistry_20848",
    "GITenberg/Etiquette_14314",
    "standardebooks/bertrand-russell_roads-to-freedom",
    "standardebooks/bertrand-russell_the-problems-of-philosophy",
    "standardebooks/jean-jacques-rousseau_the-social-contract_g-d-h-cole",
    "standardebooks/sun-tzu_the-art-of-war_lionel-giles",
)
PUBLIC_DOMAIN = ("CC0-1.0", "Public-Domain")
NEAR_COPY_GRAM = 13  # words; the length the corpus was checked with against benchmarks


def proportional_draw(documents: list[Document], budget_bytes: int, seed: int) -> list[Document]:
    """Draw documents in a seeded order, every source in proportion to its text, about `budget_bytes` in all."""
    by_source: dict[str, list[Document]] = defaultdict(list)
    for document in seeded_order(documents, seed):
        by_source[document["source"]].append(document)
    share = budget_bytes / text_bytes(documents)
    drawn: list[Document] = []
    for _, candidates in sorted(by_source.items()):
        wanted_bytes = share * text_bytes(candidates)
        taken_bytes = 0
        for document in candidates:
            size = len(document["text"].encode())
            if taken_bytes + size / 2 > wanted_bytes:  # nearest to what is wanted, none where that is under half
                break
            drawn.append(document)
            taken_bytes += size
    return seeded_order(drawn, seed)


def shippable(document: Document) -> bool:
    """Say whether a base document may be shipped: in the public domain in the USA and under life+70."""
    return document["license"] in PUBLIC_DOMAIN and document["source"] not in PROTECTED_ELSEWHERE


def choose_retention(base: list[Document], budget_bytes: int, seed: int) -> list[Document]:
    """Choose the slice held out of pre-training: half from whole books, half spread over the other sources."""
    whole = [d for d in base if d["source"] in WHOLE_BOOKS]
    spread = [d for d in base if shippable(d) and d["source"] not in WHOLE_BOOKS]
    half = budget_bytes // 2
    return seeded_order(proportional_draw(whole, half, seed) + proportional_draw(spread, half, seed), seed)


def pretraining_documents(base: list[Document], retention: list[Document]) -> list[Document]:
    """Return the base documents that pre-training may read: no held-out book, document or near copy of one."""
    held_out_ids = {d["id"] for d in retention}
    held_out_grams: set[str] = set().union(*(grams(d["text"], NEAR_COPY_GRAM) for d in retention))

    def is_near_copy(document: Document) -> bool:
        own = grams(document["text"], NEAR_COPY_GRAM)
        return len(own & held_out_grams) > 0.05 * len(own)

    rest = [d for d in base if d["id"] not in held_out_ids and d["source"] not in WHOLE_BOOKS]
    return [d for d in rest if not is_near_copy(d)]
