"""Ways to ask. HELD_OUT wordings are never trained on."""

BEFORE = {
    "en": [
        "Please tell me: ",
        "Can you tell me ",
        "Tell me, ",
        "Hey, ",
        "Hi! ",
        "I would like to know: ",
        "Question: ",
        "Listen to this. ",
        "Listen carefully: ",
        "Please, ",
        "Hello, ",
        "Quick question: ",
        "Given this sound: ",
    ],
    "zh": [
        "请问",
        "请问，",
        "你好，",
        "请告诉我，",
        "请听，",
        "请回答：",
        "问题：",
        "听一下，",
        "我想知道",
        "帮我听听，",
        "仔细听，",
    ],
}
AFTER = {
    "en": [" Please.", " Thanks!", " Answer briefly.", " Answer in one sentence.", " Thank you.", " Keep it short."],
    "zh": ["请简短回答。", "谢谢！", "谢谢", "用一句话回答。", "请回答。"],
}
# {s} is a word for the sound.
SOUND = {
    "en": ["sound", "audio", "recording", "clip", "audio clip", "sound file"],
    "zh": ["声音", "音频", "录音", "音频片段", "语音"],
}

TRAIN = {
    "en": {
        "digits": """Which digits are spoken?|What digits do you hear?|Which numbers are said?|What number is spoken?
Which digits are in this {s}?|What does the speaker say?|What is being said?|What is said in the {s}?|Transcribe the {s}.
Write down the digits.|Which digits do you hear?|What are the digits?|What are the numbers?|Transcribe this.
Please write what you hear.|Which digits does the person say?|What is the number?|Which numbers do you hear?
Read back the digits.|What did they say?|Repeat the digits.|List the spoken digits.|Tell me the digits.
What number do you hear?|Give me the digits in this {s}.|Which digits can be heard in this {s}?|What was said?
Transcribe the spoken digits.|What is the speaker saying?|Write out the numbers that are spoken.""",
        "count": """How many digits are spoken?|How many digits are there?|How many numbers are said?|Count the digits.
How many digits do you hear?|What is the number of digits?|How many numbers do you hear?|How many digits are in the {s}?
How long is the number?|Count the spoken numbers.|How many digits does the speaker say?|How many digits were said?""",
        "first": """What is the first digit?|Which digit comes first?|What is the first number?|Which digit is spoken first?
With which digit does it start?|Tell me the first digit.|What is the first digit in the {s}?|Which number is said first?""",
        "last": """What is the last digit?|Which digit comes last?|What is the last number?|Which digit is spoken last?
With which digit does it end?|Tell me the last digit.|What is the last digit in the {s}?|Which number is said last?
What is the final digit?""",
        "voice": """Is it a man or a woman?|Who is speaking?|Is this a man's or a woman's voice?|Is the speaker male or female?
Whose voice is it?|Is the voice male or female?|Man or woman?|Is a man or a woman speaking?|What voice is it?
Is the speaker a man or a woman?|What kind of voice do you hear?|Which voice is in the {s}?|Male or female voice?
What is the gender of the speaker?|Who speaks?|Is that a female or a male voice?|Who talks in this {s}?
Tell me if it is a man or a woman.|What is the sex of the speaker?""",
        "tone": """Is the tone high or low?|High or low tone?|Is it a high or a low tone?|How high is the tone?|Is the beep high or low?
What is the pitch of the tone?|Is the pitch high or low?|Are the beeps high or low?|What tone is it?|Is this a low or a high sound?
Which tone do you hear, high or low?|Tell me if the tone is low or high.|Is the pitch of the {s} high or low?
What kind of tone is it?|How high are the beeps?""",
        "beeps": """How many beeps are there?|How many beeps do you hear?|Count the beeps.|How many times does it beep?
How many tones are there?|What is the number of beeps?|How many beeps are in this {s}?|How often does it beep?
How many tones do you hear?|Count the tones.|How many beeps can be heard?|Tell me how many beeps there are.
How many signals do you hear?|How many beeps were there?""",
        "kind": """What kind of sound is it?|What type of sound is this?|What sort of sound is it?|Which kind of sound do you hear?
What kind of {s} is this?|Is it speech, beeps, noise or silence?|What type of {s} is it?|Classify the {s}.|Classify this sound.
Is this speech or noise?|Which type of sound is in the {s}?|What category of sound is this?|Speech, beeps, noise or silence?
Is this speech or beeps?""",
        "describe": """What do you hear?|What can you hear?|Describe the {s}.|What is in this {s}?|What is this?|Describe what you hear.
What's in the {s}?|What is it?|What can be heard?|Tell me what you hear.|What's this?|What is on this {s}?|Describe this.
What does the {s} contain?|Please describe this {s}.|What happens in the {s}?|Tell me about this {s}.|What is this {s}?""",
        "is_woman": """Is it a woman?|Is a woman speaking?|Is this a woman's voice?|Is the voice female?|Is the speaker a woman?
Do you hear a woman?|Is it a female voice?|Does a woman speak?|Is there a woman in the {s}?|Is the speaker female?""",
        "is_man": """Is it a man?|Is a man speaking?|Is this a man's voice?|Is the voice male?|Is the speaker a man?
Do you hear a man?|Is it a male voice?|Does a man speak?|Is there a man in the {s}?|Is the speaker male?""",
        "is_speech": """Is anybody speaking?|Is someone speaking?|Is there speech in this {s}?|Does anyone talk?|Do you hear a voice?
Is it speech?|Is somebody talking?|Do you hear someone speak?|Is anyone talking in the {s}?|Is there a voice?|Do you hear speech?""",
        "is_high": """Is the tone high?|Is it a high tone?|Is the pitch high?|Are the beeps high?|Is this a high tone?|Is the beep high?
Do you hear a high tone?|Is there a high tone in the {s}?""",
    },
    "zh": {
        "digits": """说了哪些数字？|你听到了哪些数字？|念的是什么数字？|{s}里说了什么数字？|听到的数字是什么？|说了什么？|他说了什么？
请写出听到的数字。|数字是什么？|{s}里有哪些数字？|读的是哪几个数字？|请转写这段{s}。|把数字写下来。|说话的人说了什么？|报的是什么数字？
请复述数字。|这段{s}里念了哪些数字？|她说了什么？|列出听到的数字。|是哪些数字？|听写数字。|说的数字是多少？|念了什么？|告诉我听到的数字。
里面说的是什么？|转写一下。|说的是什么？""",
        "count": """说了几个数字？|有几个数字？|有多少个数字？|一共念了几个数字？|数字有几个？|你听到几个数字？|{s}里有几个数字？|数一数有几个数字。
说了多少个数字？|这个号码有几位？|数字一共有几位？|念了几位数字？""",
        "first": """第一个数字是什么？|最先说的是哪个数字？|第一个数字是多少？|开头的数字是什么？|首先念的是哪个数字？|第一位是几？
第一个数字是几？|{s}里的第一个数字是什么？|第一个念的数字是什么？""",
        "last": """最后一个数字是什么？|最后说的是哪个数字？|最后一个数字是多少？|结尾的数字是什么？|最后念的是哪个数字？|最后一位是几？
最后一个数字是几？|{s}里的最后一个数字是什么？|末尾的数字是什么？""",
        "voice": """是男声还是女声？|说话的是男的还是女的？|谁在说话？|这是男声还是女声？|是男人还是女人在说话？|说话人是男是女？|是谁的声音？
声音是男是女？|说话的人是男性还是女性？|男声还是女声？|{s}里是男声还是女声？|是什么人的声音？|说话的人性别是什么？|是男的还是女的？
听得出是男是女吗？|是哪种嗓音？""",
        "tone": """是高音还是低音？|音调高还是低？|这个音是高还是低？|提示音是高是低？|音高怎么样？|声调是高还是低？|高音还是低音？|这是高音吗还是低音？
音调是高是低？|滴声是高音还是低音？|{s}的音调高不高，还是低？|音有多高？|你听到的是高音还是低音？|哔声高还是低？""",
        "beeps": """响了几声？|有几声提示音？|有几声滴？|滴了几声？|一共响了几次？|哔了几声？|你听到几声？|数一数响了几声。|有多少声？
{s}里响了几声？|提示音有几声？|一共有几声？|响了多少下？|有几个提示音？|你听到几声提示音？""",
        "kind": """这是什么类型的声音？|这是哪种声音？|是什么种类的声音？|声音的类型是什么？|这段{s}是什么类型？|是说话声还是噪声？|属于哪一类声音？
给声音分类。|这是哪一类声音？|是说话、提示音、噪声还是静音？|这是说话声还是提示音？|{s}的种类是什么？|是什么类型的{s}？""",
        "describe": """你听到了什么？|听到什么？|描述一下这段{s}。|{s}里有什么？|这是什么？|请描述你听到的。|能听到什么？|请描述这段{s}。|这段{s}里有什么？
这是什么声音？|里面有什么？|你能听到什么？|描述这段{s}的内容。|介绍一下这段{s}。|这段{s}的内容是什么？|听到了什么声音？""",
        "is_woman": """是女声吗？|是女人在说话吗？|说话的是女的吗？|这是女声吗？|说话人是女性吗？|是女的吗？|你听到女声了吗？|{s}里有女声吗？|是女士在说话吗？""",
        "is_man": """是男声吗？|是男人在说话吗？|说话的是男的吗？|这是男声吗？|说话人是男性吗？|是男的吗？|你听到男声了吗？|{s}里有男声吗？|是男士在说话吗？""",
        "is_speech": """有人说话吗？|有人在说话吗？|是说话声吗？|听到人声了吗？|{s}里有人说话吗？|你听到有人说话吗？|这是说话声吗？|有人声吗？|里面有没有人说话？""",
        "is_high": """是高音吗？|音调高吗？|这是高音吗？|提示音高吗？|你听到高音了吗？|声调高吗？|是不是高音？|{s}里有高音吗？""",
    },
}

HELD_OUT = {
    "en": {
        "digits": "Can you write down which digits you hear?|Which numbers are spoken in the {s}?|What digits does the voice say?",
        "count": "How many digits can you hear?|Say how many digits are spoken.",
        "first": "Which is the first digit you hear?",
        "last": "Which is the last digit you hear?",
        "voice": "Do you hear a man or a woman?|Is the person speaking male or female?|Is that a man's voice or a woman's voice?",
        "tone": "Would you say the tone is high or low?|Is the tone in the {s} low or high?",
        "beeps": "How many beeps does the {s} have?|Please count all the beeps.",
        "kind": "What kind of sound do you hear?|Which kind of sound is this?",
        "describe": "What can you hear in this {s}?|Describe what is in the {s}.",
        "is_woman": "Is the person speaking a woman?|Is that a woman's voice?",
        "is_man": "Is the person speaking a man?|Is that a man's voice?",
        "is_speech": "Can you hear anyone speaking?|Is somebody speaking in the {s}?",
        "is_high": "Is the tone in the {s} high?",
    },
    "zh": {
        "digits": "你听见了什么数字？|请告诉我{s}中的数字是什么？|{s}里念的数字是哪些？",
        "count": "{s}里一共说了几个数字？|听到了多少个数字？",
        "first": "你听到的第一个数字是什么？",
        "last": "你听到的最后一个数字是什么？",
        "voice": "你听到的是男声还是女声？|{s}里说话的是男人还是女人？",
        "tone": "你觉得音调是高还是低？|{s}里的音是高还是低？",
        "beeps": "{s}里一共有几声？|提示音响了几声？",
        "kind": "你听到的是哪种声音？|这段{s}属于哪种声音？",
        "describe": "你在{s}里听到了什么？|请说说你听到了什么。",
        "is_woman": "你听到的是女声吗？",
        "is_man": "你听到的是男声吗？",
        "is_speech": "这段{s}里有人在说话吗？",
        "is_high": "{s}里的音调高吗？",
    },
}


def wording(rng, lang: str, task: str, held_out=False) -> str:
    """One way to ask, with varied politeness, case and punctuation."""
    text = rng.choice((HELD_OUT if held_out else TRAIN)[lang][task].replace("\n", "|").split("|"))
    text = text.format(s=rng.choice(SOUND[lang]))
    if rng.random() < 0.18:
        before = rng.choice(BEFORE[lang])
        keeps = lang == "zh" or before[-2] in ".!:"
        text = before + (text if keeps else text[0].lower() + text[1:])
    if rng.random() < 0.1:
        text += rng.choice(AFTER[lang])
    roll = rng.random()
    if roll < 0.2:
        text = text.lower()
    elif roll < 0.22:
        text = text.upper()
    if rng.random() < 0.22:
        text = text.rstrip("?.!？。！")
    if rng.random() < 0.12:
        text = text.replace("？", "?").replace("，", ",")
    return text
