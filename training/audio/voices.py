"""Who speaks and what is said. HELD_OUT voices, accents and speeds are never trained on."""


def _words(text: str) -> list[str]:
    return text.split()


MEN = (
    _words(
        """m1 m2 m3 m4 m6 m7 adam Alex Andy Denis Diogo Gene Hugo john Lee Marco max michel Mike pablo pedro robert sandro
    travis victor benjamin antonio caleb iven"""
    )
    + [""] * 3
)
WOMEN = _words("f1 f2 f4 f5 Alicia Andrea aunty belinda steph anika")
ACCENTS = {
    "en": _words("en-us en-us en en en-gb-scotland en-gb-x-gbclan en-gb-x-rp en-029"),
    "zh": ["cmn"],
}
SPEEDS = [(105, 150), (168, 215)]  # words a minute

HELD_OUT_MEN = _words("m5 m8 david Henrique edward Michael")
HELD_OUT_WOMEN = _words("f3 Annie linda steph3")
HELD_OUT_ACCENTS = {"en": _words("en-us-nyc en-gb-x-gbcwmd en-us en"), "zh": ["cmn"]}
HELD_OUT_SPEEDS = [(152, 166)]

DIGITS = {
    "en": _words("zero one two three four five six seven eight nine"),
    "zh": list("零一二三四五六七八九"),
}
# Speech without digits.
TALK = {
    "en": """hello|good morning|how are you|thank you very much|see you tomorrow|the weather is nice|please open the door
where is the station|my name is Anna|I like music|what a beautiful day|could you help me please|good night everybody
the cat sleeps on the sofa|we are going home|turn on the light|I would like some water|the train is late|yes|no|maybe
this is a test|listen to me|happy birthday|it is raining again|who is there|I do not know|call me later""",
    "zh": """你好|早上好|谢谢你|明天见|今天天气很好|请把门打开|车站在哪里|我喜欢音乐|请帮帮我|晚安|我们回家吧|打开灯|我想喝水
火车晚点了|好的|不是|也许吧|请听我说|生日快乐|外面在下雨|谁在那里|我不知道|请再说慢点|欢迎光临""",
}
HELD_OUT_TALK = {
    "en": "good afternoon|where do you live|the dog runs in the garden|I am very tired|let us go to the beach",
    "zh": "下午好|你住在哪里|小狗在花园里跑|我非常累|我们去海边吧",
}


def talk(lang: str, held_out=False) -> list[str]:
    return (HELD_OUT_TALK if held_out else TALK)[lang].replace("\n", "|").split("|")


def voice(rng, lang: str, woman: bool, held_out=False) -> str:
    """A name for espeak-ng, such as en-us+f3."""
    accent = rng.choice((HELD_OUT_ACCENTS if held_out else ACCENTS)[lang])
    men, women = (HELD_OUT_MEN, HELD_OUT_WOMEN) if held_out else (MEN, WOMEN)
    variant = rng.choice(women if woman else men)
    return f"{accent}+{variant}" if variant else accent


def speed(rng, held_out=False) -> float:
    return rng.uniform(*rng.choice(HELD_OUT_SPEEDS if held_out else SPEEDS))
