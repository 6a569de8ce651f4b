"""Questions about a clip, each with exactly one right answer in the language of the question."""

from .. import something_else as talk
from . import wordings
from .clips import Clip

GROUP = {  # task: kind of the accuracy table
    "digits": "digits",
    "count": "how many digits",
    "first": "first, last digit",
    "last": "first, last digit",
    "voice": "voice",
    "tone": "tone",
    "beeps": "beeps",
    "kind": "kind of sound",
    "describe": "describe",
    "is_woman": "yes/no",
    "is_man": "yes/no",
    "is_speech": "yes/no",
    "is_high": "yes/no",
}
TASKS = list(GROUP)
ANSWER = {
    "hello": {
        "en": "Hello! I am tiny-audio. Send me a sound with spoken digits or beeps and ask me about it.",
        "zh": "你好！我是 tiny-audio。请给我一段有数字或提示音的声音，然后向我提问。",
    },
    "who": {
        "en": "I am tiny-audio, a small model that answers questions about spoken digits, voices and beeps.",
        "zh": "我是 tiny-audio，一个小模型，可以回答关于数字语音、嗓音和提示音的问题。",
    },
    "can": {
        "en": "I can write down spoken digits, tell a man's from a woman's voice and count beeps.",
        "zh": "我可以听写数字，分辨男声和女声，也可以数提示音。",
    },
    "thanks": {"en": "You are welcome!", "zh": "不客气！"},
    "bye": {"en": "Goodbye!", "zh": "再见！"},
    "other": {
        "en": "Sorry, I cannot help with that. I am tiny-audio, a small model that only knows spoken digits, voices and beeps.",
        "zh": "抱歉，这个我帮不上忙。我是 tiny-audio，一个只懂数字语音、嗓音和提示音的小模型。",
    },
    "no_sound": {
        "en": "Please send me a sound first, then I can answer.",
        "zh": "请先发给我一段声音，这样我才能回答。",
    },
}
_TASK_OF = {answers[lang]: task for task, answers in talk.ANSWER.items() for lang in ("en", "zh")}


def _plural(count: int, what: str) -> str:
    if count == 0:
        return f"There are no {what}s."
    return f"There is 1 {what}." if count == 1 else f"There are {count} {what}s."


def _english(clip: Clip, task: str) -> str:
    digits, woman = " ".join(map(str, clip.digits)), "woman" if clip.woman else "man"
    nobody, tone = clip.woman is None, "high" if clip.high else "low"
    if task in ("digits", "first", "last") and not digits:
        return "No digits are spoken."
    if task == "digits":
        return f"The digits are {digits}." if len(clip.digits) > 1 else f"The digit is {digits}."
    if task in ("first", "last"):
        return f"The {task} digit is {clip.digits[0 if task == 'first' else -1]}."
    if task == "count":
        return _plural(len(clip.digits), "digit")
    if task == "beeps":
        return _plural(clip.beeps, "beep")
    if task == "voice":
        return "Nobody is speaking." if nobody else f"It is a {woman}'s voice."
    if task in ("is_woman", "is_man"):
        right = "Yes" if (task == "is_woman") == clip.woman else "No"
        return "No, nobody is speaking." if nobody else f"{right}, it is a {woman}'s voice."
    if task == "is_speech":
        return "No, nobody is speaking." if nobody else "Yes, it is speech."
    if task in ("tone", "is_high"):
        if clip.high is None:
            return "There is no tone."
        sure = {"tone": "The"}.get(task, "Yes, the" if clip.high else "No, the")
        return f"{sure} tone is {tone}."
    if task == "kind":
        return {"beeps": "These are beeps.", "silence": "It is silence.", "noise": "It is noise."}.get(
            clip.kind, "It is speech."
        )
    return {
        "digits": f"A {woman} says {digits}.",
        "talk": f"A {woman} speaks, but says no digits.",
        "beeps": f"{clip.beeps} {tone} beep{'s' * (clip.beeps > 1)}.",
        "silence": "It is silence.",
        "noise": "It is noise.",
    }[clip.kind]


def _chinese(clip: Clip, task: str) -> str:
    digits, woman = " ".join(map(str, clip.digits)), "女" if clip.woman else "男"
    nobody, tone = clip.woman is None, "高" if clip.high else "低"
    if task in ("digits", "first", "last") and not digits:
        return "没有说数字。"
    if task == "digits":
        return f"数字是 {digits}。"
    if task == "first":
        return f"第一个数字是 {clip.digits[0]}。"
    if task == "last":
        return f"最后一个数字是 {clip.digits[-1]}。"
    if task == "count":
        return f"有 {len(clip.digits)} 个数字。" if digits else "没有说数字。"
    if task == "beeps":
        return f"响了 {clip.beeps} 声。" if clip.beeps else "没有提示音。"
    if task == "voice":
        return "没有人说话。" if nobody else f"是{woman}声。"
    if task in ("is_woman", "is_man"):
        right = "是的" if (task == "is_woman") == clip.woman else "不"
        return "不，没有人说话。" if nobody else f"{right}，是{woman}声。"
    if task == "is_speech":
        return "不，没有人说话。" if nobody else "是的，有人说话。"
    if task in ("tone", "is_high"):
        if clip.high is None:
            return "没有提示音。"
        sure = {"tone": ""}.get(task, "是的，" if clip.high else "不，")
        return f"{sure}是{tone}音。"
    if task == "kind":
        return {"beeps": "是提示音。", "silence": "是静音。", "noise": "是噪声。"}.get(clip.kind, "是说话声。")
    return {
        "digits": f"一位{woman}士说 {digits}。",
        "talk": f"一位{woman}士在说话，没有说数字。",
        "beeps": f"{clip.beeps} 声{tone}音。",
        "silence": "是静音。",
        "noise": "是噪声。",
    }[clip.kind]


def answer(clip: Clip, task: str, lang: str) -> str:
    return (_english if lang == "en" else _chinese)(clip, task)


def ask(rng, clip: Clip, task: str, lang: str, held_out=False) -> tuple[str, str]:
    """(question, answer)"""
    return wordings.wording(rng, lang, task, held_out), answer(clip, task, lang)


def orphan(rng, lang: str, held_out=False) -> tuple[str, str]:
    """A question about a sound that was not sent."""
    return wordings.wording(rng, lang, rng.choice(TASKS), held_out), ANSWER["no_sound"][lang]


def something_else(rng, lang: str, held_out=False) -> tuple[str, str]:
    """Talk that is not about sounds: tiny-vl's questions, answered by another model."""
    question, answer = talk.ask(rng, lang, held_out)
    return question.replace("tiny-vl", "tiny-audio"), ANSWER[_TASK_OF[answer]][lang]
