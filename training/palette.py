"""The colours, shapes and places tiny-vl knows, and how they are called."""

# Several true shades per name: people write "green" and mean (0, 255, 0) or (0, 128, 0).
SHADES = {
    "red": [
        (255, 0, 0),
        (220, 20, 60),
        (200, 0, 0),
        (230, 40, 40),
        (255, 45, 45),
        (178, 16, 16),
        (214, 39, 40),
        (229, 57, 53),
    ],
    "orange": [(255, 165, 0), (255, 140, 0), (255, 127, 14), (245, 150, 30), (240, 130, 20)],
    "yellow": [(255, 255, 0), (255, 230, 0), (240, 225, 40), (255, 215, 0), (250, 240, 80), (255, 235, 59)],
    "green": [
        (0, 128, 0),
        (0, 255, 0),
        (0, 200, 0),
        (34, 139, 34),
        (50, 205, 50),
        (44, 160, 44),
        (76, 175, 80),
        (0, 100, 0),
    ],
    "cyan": [(0, 255, 255), (0, 220, 230), (60, 230, 240), (0, 206, 209), (64, 224, 208)],
    "blue": [
        (0, 0, 255),
        (30, 60, 220),
        (0, 0, 180),
        (65, 105, 225),
        (30, 120, 255),
        (31, 119, 180),
        (33, 150, 243),
        (0, 0, 139),
        (0, 100, 200),
    ],
    "purple": [
        (128, 0, 128),
        (148, 0, 211),
        (110, 30, 160),
        (75, 0, 130),
        (160, 60, 200),
        (156, 39, 176),
        (147, 112, 219),
    ],
    "pink": [(255, 192, 203), (255, 105, 180), (255, 150, 190), (255, 182, 193), (240, 130, 180), (255, 80, 160)],
    "brown": [(165, 42, 42), (139, 69, 19), (120, 70, 30), (150, 80, 40), (101, 67, 33), (160, 82, 45), (121, 85, 72)],
    "black": [(0, 0, 0), (20, 20, 20), (10, 10, 14), (30, 30, 30)],
    "white": [(255, 255, 255), (248, 248, 248), (252, 252, 246)],
    "gray": [(128, 128, 128), (110, 110, 110), (150, 150, 150), (169, 169, 169), (100, 104, 108), (140, 140, 146)],
}
COLOURS = list(SHADES)

SHAPES = ["circle", "square", "rectangle", "triangle", "star", "diamond", "hexagon", "heart", "cross", "ellipse"]

# Nine areas, row by row.
AREAS = ["top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"]

ZH_COLOUR = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "cyan": "青色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "brown": "棕色",
    "black": "黑色",
    "white": "白色",
    "gray": "灰色",
}
ZH_SHAPE = {
    "circle": "圆形",
    "square": "正方形",
    "rectangle": "长方形",
    "triangle": "三角形",
    "star": "五角星",
    "diamond": "菱形",
    "hexagon": "六边形",
    "heart": "心形",
    "cross": "十字形",
    "ellipse": "椭圆形",
}
ZH_AREA = {
    "top left": "左上角",
    "top": "上方",
    "top right": "右上角",
    "left": "左侧",
    "center": "中间",
    "right": "右侧",
    "bottom left": "左下角",
    "bottom": "下方",
    "bottom right": "右下角",
}

# Other words people use in questions; answers keep to the names above.
ALIAS_COLOUR = {"purple": ["violet"], "gray": ["grey"], "cyan": ["turquoise"]}
ALIAS_SHAPE = {
    "circle": ["disc", "round shape", "dot"],
    "ellipse": ["oval"],
    "diamond": ["rhombus"],
    "cross": ["plus sign", "plus"],
    "star": ["five-pointed star"],
}
ALIAS_ZH_COLOUR = {
    "red": ["红"],
    "orange": ["橙", "橘色", "橘黄色"],
    "yellow": ["黄"],
    "green": ["绿"],
    "cyan": ["青"],
    "blue": ["蓝"],
    "purple": ["紫"],
    "pink": ["粉红色", "粉红"],
    "brown": ["褐色", "咖啡色", "棕"],
    "black": ["黑"],
    "white": ["白"],
    "gray": ["灰"],
}
ALIAS_ZH_SHAPE = {
    "circle": ["圆", "圆圈", "圆点"],
    "square": ["方块", "方形", "正方块"],
    "rectangle": ["矩形"],
    "star": ["星形", "星星", "星"],
    "heart": ["爱心", "心"],
    "cross": ["十字", "加号"],
    "ellipse": ["椭圆"],
}


def distance(a, b) -> float:
    """Rough perceived distance of two RGB colours."""
    mean = (a[0] + b[0]) / 2
    r, g, bl = (a[i] - b[i] for i in range(3))
    return ((2 + mean / 256) * r * r + 4 * g * g + (2 + (255 - mean) / 256) * bl * bl) ** 0.5


def shade(rng, name: str):
    base = rng.choice(SHADES[name])
    amount = 0 if rng.random() < 0.5 else (5 if name in ("black", "white", "brown") else 10)
    return tuple(min(255, max(0, c + rng.randint(-amount, amount))) for c in base)
