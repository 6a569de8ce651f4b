"""Media tags in text: what is one, what is text, and what is half of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import InvalidRequest
from sensorium.protocol.tags import MAX_TAGS, Item, Place, cut

HERE = "messages[0].content"
BASE64 = "/9j/4AAQSkZJRgABAQAAAQABAAD" * 4


def pieces(text: str, **options: bool) -> list[object]:
    return [piece for piece in cut(text, HERE, **options) if piece != ""]


@pytest.mark.parametrize(
    "url",
    [
        "https://h/rose.jpg",
        "https://h/" + "x" * 5000,
        "data:image/png;base64,iVBORw0KGgo=",
        "file:///data/rose.jpg",
        "/data/rose.jpg",
        "rose.jpg",
        "玫瑰.jpg",
        BASE64,
        BASE64[:76] + "\n" + BASE64[:76] + "\n",
    ],
)
@pytest.mark.parametrize(("tag", "kind"), [("img", "image"), ("audio", "audio"), ("video", "video")])
def test_pairs(url: str, tag: str, kind: str) -> None:
    assert pieces(f"前<{tag}> {url} </{tag}>后\n") == ["前", Item(kind, f"<{tag}>", url.strip()), "后\n"]  # type: ignore[arg-type]


def test_places_know_where_they_stand() -> None:
    assert pieces("a<image>b<img/><audio><video>") == [
        "a",
        Place("image", "<image>", 1),
        "b",
        Place("image", "<img/>", 9),
        Place("audio", "<audio>", 15),
        Place("video", "<video>", 22),
    ]


def test_pairs_and_places_side_by_side() -> None:
    assert pieces("<img>http://a</img><image><video>http://b</video><video>") == [
        Item("image", "<img>", "http://a"),
        Place("image", "<image>", 19),
        Item("video", "<video>", "http://b"),
        Place("video", "<video>", 49),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "<IMG> and <Image> and <images> and < image >",
        '<img src="x.png"> and <img alt="">',
        "How do I use the <img> tag?",
        "What does </img> or </video> do?",
        "<ref>花</ref><box>(34,449),(368,981)</box>",
        "",
    ],
)
def test_what_is_only_text(text: str) -> None:
    assert pieces(text) == ([text] if text else [])


@pytest.mark.parametrize("text", ["<audio>Your browser cannot.</audio>", '<video>\n<source src="a.mp4">\n</video>'])
def test_html_pairs_are_no_items(text: str) -> None:
    found = pieces(text)
    assert not any(isinstance(piece, Item) for piece in found)
    assert "".join(piece.tag if isinstance(piece, Place) else str(piece) for piece in found) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x<img>https://h/rose.jpg 图中是什么花？", "has <img> at character 1 and no </img> behind it"),
        ("<img>rose.jpg 图中是什么花？", "write <img>URL</img>"),
        (f"<img>{BASE64}", "no </img>"),
        ("<img>data:image/png;base64,AAAA", "no </img>"),
        ("<video>http://h/v.mp4", "no </video>"),
        ("<audio>http://h/a.wav</img>", "no </audio>"),
        ("<img>http://a<img>http://b</img>", "at character 0 and no </img>"),
        ("<img></img>x", "an empty <img></img> at character 0"),
        ("<img>  </img>x", "an empty <img></img>"),
    ],
)
def test_half_pairs_with_an_address_are_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        pieces(text)
    assert words in caught.value.message
    assert caught.value.message.startswith(f"`{HERE}` has")
    assert caught.value.param == HERE


@pytest.mark.parametrize("text", ["<img>x", "x</img>", "</img>http://a<img>", "<img>a<img>b</img>"])
def test_strictly_half_pairs_of_img_are_refused_whatever_follows(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"no <img> before|no </img> behind"):
        pieces(text, strict=True)


def test_places_only() -> None:
    text = "<img>http://a</img> <image> <img>http://b"
    assert pieces(text, pairs=False) == ["<img>http://a</img> ", Place("image", "<image>", 20), " <img>http://b"]


def test_one_kind_only() -> None:
    text = "<video> http://v </video><audio><image>"
    assert pieces(text, only="image") == ["<video> http://v </video><audio>", Place("image", "<image>", 32)]  # type: ignore[arg-type]


fragments = st.sampled_from(
    ["<img>", "</img>", "<image>", "<img/>", "<audio>", "</audio>", "<video>", "</video>", "http://a", "x y", "<", ">"]
)


@given(st.lists(fragments, max_size=12))
def test_nothing_is_lost_and_nothing_is_added(words: list[str]) -> None:
    text = "".join(words)
    try:
        found = list(cut(text, HERE))
    except InvalidRequest:
        return
    closed = {"<img>": "</img>", "<audio>": "</audio>", "<video>": "</video>"}
    written = "".join(
        piece
        if isinstance(piece, str)
        else piece.tag + (piece.url + closed[piece.tag] if isinstance(piece, Item) else "")
        for piece in found
    )
    assert written.replace(" ", "") == text.replace(" ", "")


def test_a_text_of_many_tags_is_read_up_to_a_number() -> None:
    assert len(pieces("<image>" * MAX_TAGS)) == MAX_TAGS
    assert len(pieces("<img> " * MAX_TAGS)) == 1
    assert len(pieces("<audio>" + "a." * 1_000_000)) == 2
    for tag in ("<image>", "<img>", "</img>"):
        with pytest.raises(InvalidRequest, match="more than 20,000 media tags"):
            pieces(tag * (MAX_TAGS + 1))
