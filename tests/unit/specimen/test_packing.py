from pellucid.specimen import mixture, vocabulary
from pellucid.specimen.packing import PackedStream


def test_sequences_hold_whole_documents_and_one_cut_one() -> None:
    stream = PackedStream(seed=4, length=160)
    expected = [vocabulary.encode(mixture.document(4, index)) for index in range(80)]
    for _ in range(10):
        first = stream.next_document
        sequence = stream.next_sequence()
        whole = [i for document in expected[first : stream.next_document] for i in document]
        assert len(sequence) == 160 <= len(whole)
        assert sequence == whole[:160]
        assert len(whole) - len(expected[stream.next_document - 1]) < 160


def test_the_next_document_is_the_whole_state() -> None:
    stream = PackedStream(seed=4, length=64)
    stream.next_batch(5)
    resumed = PackedStream(seed=4, length=64, next_document=stream.next_document)
    assert resumed.next_batch(7).tolist() == stream.next_batch(7).tolist()


def test_batches_are_sequences_in_order() -> None:
    one, other = PackedStream(seed=0, length=32), PackedStream(seed=0, length=32)
    batch = one.next_batch(3)
    assert batch.shape == (3, 32)
    assert batch.tolist() == [other.next_sequence() for _ in range(3)]


def test_splits_differ() -> None:
    held_out = PackedStream(seed=0, length=32, split="heldout")
    assert held_out.next_sequence() != PackedStream(seed=0, length=32).next_sequence()
