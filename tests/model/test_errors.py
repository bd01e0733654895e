"""What an error says can be shown and sent, whatever it quotes."""

from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import InvalidInput, NotFound


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_any_message_has_bytes(message: str) -> None:
    for error in (InvalidInput, NotFound):
        assert isinstance(str(error(message)).encode(), bytes)


def test_a_whole_message_stays_as_it_is() -> None:
    assert str(InvalidInput("expected – é 😀")) == "expected – é 😀"
    assert str(InvalidInput("got \ud800")) == "got \\ud800"
