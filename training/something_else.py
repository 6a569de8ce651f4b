"""Talk that is not about shapes and digits, and questions that lack their picture."""

ANSWER = {
    "hello": {"en": "Hello! I am tiny-vl. Show me a picture of coloured shapes or digits and ask me about it.",
              "zh": "你好！我是 tiny-vl。请给我一张有彩色图形或数字的图片，然后向我提问。"},
    "who": {"en": "I am tiny-vl, a small model that answers questions about pictures of coloured shapes and digits.",
            "zh": "我是 tiny-vl，一个小模型，可以回答关于彩色图形和数字图片的问题。"},
    "can": {"en": "I can name, count, locate and compare coloured shapes in pictures, and read digits.",
            "zh": "我可以说出、数出、定位和比较图片中的彩色图形，也可以读出数字。"},
    "thanks": {"en": "You are welcome!", "zh": "不客气！"},
    "bye": {"en": "Goodbye!", "zh": "再见！"},
    "other": {"en": "Sorry, I cannot help with that. I am tiny-vl, a small model that only knows pictures of coloured shapes and digits.",
              "zh": "抱歉，这个我帮不上忙。我是 tiny-vl，一个只懂彩色图形和数字图片的小模型。"},
    "no_picture": {"en": "Please send me a picture first, then I can answer.",
                   "zh": "请先发给我一张图片，这样我才能回答。"},
    "one_picture": {"en": "I see only one picture. Please send me two pictures to compare.",
                    "zh": "我只看到一张图片。请发给我两张图片来比较。"},
}

EN = {
    "hello": [
        "Hello", "Hi", "Hey", "Hello!", "Hi there!", "Good morning", "Good evening!", "Hey there",
        "Hello, how are you?", "How are you?", "Hi, nice to meet you.", "Good day", "Greetings!",
        "Hello tiny-vl", "How are you doing?", "What's up?", "Good afternoon", "hello world", "yo",
        "Howdy",
    ],
    "who": [
        "Who are you?", "What are you?", "What is your name?", "What's your name?", "Introduce yourself.",
        "Which model are you?", "Are you ChatGPT?", "Are you a human?", "Who made you?", "Are you Qwen?",
        "Tell me about yourself.", "Who am I talking to?", "What model is this?", "Are you a robot?",
        "Please introduce yourself.", "What kind of model are you?", "Who created you?",
        "What is tiny-vl?", "Are you an AI?", "Who is this?", "What should I call you?",
    ],
    "can": [
        "What can you do?", "How can you help me?", "What are you good at?", "What are your abilities?",
        "What do you know?", "Help", "help me", "What can I ask you?", "What are you able to do?",
        "How do I use you?", "What questions can you answer?", "What is your purpose?",
        "What can you help with?", "List your capabilities.", "Can you help me?", "What are your skills?",
        "What do you do?",
    ],
    "thanks": [
        "Thanks", "Thank you!", "Thank you very much.", "Thanks a lot", "Great, thanks!", "thx",
        "Many thanks", "Thanks for your help.", "Nice, thank you", "Cheers", "Good job!", "Well done.",
    ],
    "bye": ["Bye", "Goodbye", "See you", "Good night", "Bye bye!", "See you later", "Take care", "Farewell"],
    "other": [
        "Write a poem about {t}.", "What is the capital of {c}?", "Tell me a joke.",
        "Tell me a story about {t}.", "What is {n} + {n}?", "What is {n} times {n}?",
        "Calculate {n} - {n}.", "Translate '{t}' into French.", "Explain {t}.", "What is {t}?",
        "Who invented {t}?", "How do I cook {t}?", "Write a Python function for {t}.",
        "What is the weather today?", "What time is it?", "Who is the president of {c}?",
        "How tall is {t}?", "Give me a recipe for {t}.", "Write an essay about {t}.",
        "What is the meaning of life?", "Sing a song.", "What is the population of {c}?",
        "Recommend a book about {t}.", "How far is the moon?", "Solve {n}x = {n}.",
        "What is the best {t}?", "Do you like {t}?", "Where is {c}?", "How old are you?",
        "What day is it today?", "Write code to sort a list.", "Who won the game yesterday?",
        "Can you play {t}?", "Define {t}.", "What's the news?", "How does {t} work?",
        "Why is the sky blue?", "Plan a trip to {c}.", "I am sad.", "What do you think about {t}?",
        "Summarize the history of {c}.", "Write a letter to my boss.", "Where were you born?",
        "Is {t} good for me?", "Which language is spoken in {c}?", "How much does {t} cost?",
        "Tell me about {t}.", "Tell me something about {c}.", "Who wrote {t}?", "When was {t} invented?",
        "Teach me {t}.", "Give me advice about {t}.", "Compose a haiku about {t}.",
        "Let's talk about {t}.", "What should I eat today?", "Make a list of {t}.",
        "What is your favourite {t}?", "Write a short story.", "Write me a poem.",
        "Which is better, {t} or {t}?", "How do you spell {t}?", "{t}", "{c}", "asdf {n}", "I love {t}.",
        "Draw {t} for me.", "Generate an image of {t}.", "Open the door.", "Who was {t}?",
        "What is the square root of {n}?", "Convert {n} miles to kilometers.",
        "How many people live in {c}?", "How many days are in a year?",
        "What is the largest {t} in the world?", "Can you drive to {c}?",
    ],
    "with_picture": [
        "Who painted this?", "Where was this photo taken?", "What breed is this {t}?", "Is this {t}?",
        "How much does this cost?", "What is the mood of the picture?",
        "Who is the person in the picture?", "What year is this from?", "Which {t} is shown?",
        "What brand is it?", "Is there {t} in the picture?", "Do you like this picture?", "Is this real?",
        "What camera was used?", "What is the person doing?", "Tell me a story about this picture.",
        "How old is the man?", "What is the weather like here?",
    ],
    "topics": """love spring the sea cats dogs winter music a car football pizza a dragon physics history tea coffee gravity
the moon pasta chess a robot bitcoin quantum computers a tree the internet bread electricity a guitar rain a horse soup
the sun evolution economics friendship a bicycle flowers Shakespeare Einstein Harry Potter calculus yoga a computer
machine learning rice chicken birds a house a bird an elephant philosophy a mountain a river beer wine sleep school
politics religion movies basketball tennis a plane trains vaccines inflation a lion stars in space the universe time
money work a book a phone Beethoven Napoleon a cake a sandwich the brain the heart disease a virus photosynthesis""",
    "places": """France Germany China Japan Italy Spain Canada Brazil India Egypt Kenya Russia Mexico Peru Norway Sweden
Poland Greece Turkey Australia Paris London Berlin Tokyo Beijing Rome Madrid America England Europe Africa Asia Chile""",
}
ZH = {
    "hello": [
        "你好", "您好", "你好！", "嗨", "早上好", "晚上好", "大家好", "你好呀", "你好吗？", "最近好吗？",
        "哈喽", "下午好", "在吗？", "很高兴认识你", "你好，tiny-vl",
    ],
    "who": [
        "你是谁？", "你叫什么名字？", "你是什么模型？", "介绍一下你自己。", "请自我介绍。",
        "你是机器人吗？", "你是ChatGPT吗？", "谁开发了你？", "你是人吗？", "自我介绍一下", "你是什么？",
        "你是通义千问吗？", "你的名字是什么？", "我在和谁说话？", "tiny-vl是什么？", "你是人工智能吗？",
        "你是哪个模型？", "谁创造了你？",
    ],
    "can": [
        "你会做什么？", "你能做什么？", "你有什么功能？", "你可以帮我什么？", "你擅长什么？",
        "怎么使用你？", "你会什么？", "帮助", "我可以问你什么？", "你能回答什么问题？", "你有哪些能力？",
        "你能帮我吗？", "你有什么用？", "你的作用是什么？",
    ],
    "thanks": [
        "谢谢", "谢谢你！", "非常感谢", "多谢", "太感谢了", "好的，谢谢", "谢谢你的帮助。", "感谢",
        "做得好", "真棒",
    ],
    "bye": ["再见", "拜拜", "晚安", "回头见", "下次见", "再会", "我走了"],
    "other": [
        "写一首关于{t}的诗。", "{c}的首都是哪里？", "讲个笑话。", "讲一个关于{t}的故事。",
        "{n}加{n}等于多少？", "{n}乘以{n}是多少？", "把“{t}”翻译成英文。", "解释一下{t}。", "{t}是什么？",
        "谁发明了{t}？", "怎么做{t}？", "今天天气怎么样？", "现在几点了？", "{c}的总统是谁？",
        "写一篇关于{t}的文章。", "人生的意义是什么？", "唱首歌。", "{c}有多少人口？",
        "推荐一本关于{t}的书。", "你喜欢{t}吗？", "{c}在哪里？", "你几岁了？", "今天星期几？",
        "写一段代码。", "昨天谁赢了比赛？", "天空为什么是蓝色的？", "帮我计划去{c}的旅行。", "我很难过。",
        "你觉得{t}怎么样？", "{c}的历史是什么？", "帮我写一封信。", "{t}多少钱？", "告诉我关于{t}的事。",
        "{t}怎么用？", "写一首诗。", "给我讲个故事。", "推荐一部电影。", "{t}和{t}哪个更好？", "{t}",
        "{c}", "今天吃什么？", "教我{t}。", "我爱{t}。", "画一个{t}。", "有什么新闻？", "谁写了{t}？",
        "月亮有多远？", "{n}的平方根是多少？", "怎么学习{t}？", "为什么要学{t}？", "谈谈{t}吧。",
        "{c}人说什么语言？", "一年有多少天？", "最好的{t}是什么？", "帮我订一张去{c}的票",
    ],
    "with_picture": [
        "这是谁画的？", "这张照片是在哪里拍的？", "图中的人是谁？", "这个多少钱？",
        "图里的{t}是什么品种？", "这是什么牌子？", "图中的人在做什么？", "这张图片好看吗？",
        "这是哪一年的？", "用什么相机拍的？", "根据图片讲个故事。", "图中的天气怎么样？", "图里有{t}吗？",
        "这是{t}吗？", "你喜欢这张图片吗？",
    ],
    "topics": """爱情 春天 大海 猫 狗 冬天 音乐 汽车 足球 披萨 龙 物理 历史 茶 咖啡 重力 面条 象棋 机器人 比特币 量子计算 树 互联网
面包 电 吉他 雨 马 汤 进化论 经济 友谊 自行车 花 莎士比亚 爱因斯坦 微积分 瑜伽 电脑 机器学习 米饭 鸡肉 鸟 房子 大象 哲学 山 河流 啤酒
睡觉 学校 政治 电影 篮球 飞机 火车 疫苗 狮子 宇宙 时间 钱 工作 书 手机 贝多芬 蛋糕 大脑 病毒 光合作用 诗歌 西红柿炒鸡蛋 红烧肉 英语 数学""",
    "places": """法国 德国 中国 日本 意大利 西班牙 加拿大 巴西 印度 埃及 俄罗斯 墨西哥 挪威 瑞典 波兰 希腊 土耳其 澳大利亚 巴黎 伦敦
柏林 东京 北京 罗马 上海 美国 英国 欧洲 非洲 亚洲 广州 纽约""",
}

HELD_OUT = {
    "en": {"hello": [
               "Hi, good to see you!", "Hello there",
           ], "who": [
                                                                 "May I ask who you are?",
                                                                 "What exactly are you?",
                                                             ],
           "can": [
               "What sort of things can you do?", "Tell me what you can do.",
           ], "thanks": [
                                                                                       "Thank you so much!",
                                                                                   ],
           "bye": ["Bye for now"],
           "other": [
               "Write me a limerick about {t}.", "Which river flows through {c}?",
               "How does one repair {t}?", "What happened in {c} in 1990?", "Is {t} dangerous?",
               "Please compute {n} divided by {n}.", "Who discovered {t}?",
           ]},
    "zh": {"hello": ["你好啊，很高兴见到你"], "who": ["请问你是谁？", "能介绍一下你自己吗？"],
           "can": ["你都能做些什么？"], "thanks": ["谢谢你帮我"], "bye": ["那再见了"],
           "other": [
               "给我写一段关于{t}的话。", "{c}最大的城市是哪个？", "谁发现了{t}？", "怎样修理{t}？",
               "{n}除以{n}是多少？",
           ]},
}


def _words(lang, key):
    raw = (EN if lang == "en" else ZH)[key].replace("\n", " ")
    return raw.split(" ")


def _fill(rng, lang, text):
    while "{t}" in text:
        topic = rng.choice(_words(lang, "topics"))
        if lang == "en" and topic in ("a", "an", "the"):
            topic += " " + rng.choice(["cat", "lamp", "shoe", "city", "song", "table", "law"])
        if rng.random() < 0.12:  # words never seen before still mean "something else"
            topic = "".join(rng.choice("abcdefghiklmnoprstuvwyz") for _ in range(rng.randint(3, 9)))
        text = text.replace("{t}", topic, 1)
    while "{c}" in text:
        text = text.replace("{c}", rng.choice(_words(lang, "places")), 1)
    while "{n}" in text:
        text = text.replace("{n}", str(rng.randint(1, 99)), 1)
    if rng.random() < 0.2:
        text = text.lower()
    if rng.random() < 0.25:
        text = text.rstrip("?.!。？！")
    if rng.random() < 0.08:
        text = (rng.choice(["Please: ", "Hi, ", "Hello, "]) if lang == "en" else rng.choice(["请", "你好，"])) + text
    return text


def ask(rng, lang, held=False, with_picture=False):
    """(question, answer) for talk. With a picture in view only some of it makes sense."""
    table = EN if lang == "en" else ZH
    task = rng.choices(["hello", "who", "can", "thanks", "bye", "other"], [1, 1.5, 1.2, 0.6, 0.5, 5])[0]
    source = HELD_OUT[lang] if held else table
    if with_picture and not held and task == "other" and rng.random() < 0.3:
        text = rng.choice(table["with_picture"])
    else:
        text = rng.choice(source[task])
    return _fill(rng, lang, text), ANSWER[task][lang]
