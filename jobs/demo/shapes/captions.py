"""In: a scene and a seed. Out: what it shows, said in English and in Chinese, in one of several wordings."""

from __future__ import annotations

from random import Random

from framefleet.jobs.demo.shapes.scene import Scene

LANGUAGES = ("en", "zh")
MAX_TOKENS = 64  # of a caption: its bytes, and an end

ENGLISH_SHAPES = {
    "ball": ("ball", "ball", "circle"),
    "square": ("square",),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring",),
    "cross": ("cross",),
}
ENGLISH_MOTIONS = {
    "left": ("moves left", "moves to the left", "slides left"),
    "right": ("moves right", "moves to the right", "slides right"),
    "up": ("moves up", "rises", "floats up"),
    "down": ("moves down", "falls", "sinks down"),
    "bounce": ("bounces", "bounces", "bounces up and down"),
    "grow": ("grows", "gets bigger", "becomes larger"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller"),
    "still": ("stays still", "does not move", "stands still"),
}
ENGLISH_SENTENCES = (
    "a {color} {shape} {motion} on a {background} background",
    "a {color} {shape} {motion} on a {background} background",  # twice: what most people will type
    "a {color} {shape} {motion} on {background}",
    "on a {background} background a {color} {shape} {motion}",
)

CHINESE_COLORS = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "cyan": "青色",
    "purple": "紫色",
    "white": "白色",
    "black": "黑色",
    "pink": "粉色",
}
CHINESE_SHAPES = {
    "ball": ("球", "球", "圆球"),
    "square": ("方块", "正方形"),
    "triangle": ("三角形",),
    "star": ("星星", "五角星"),
    "ring": ("圆环",),
    "cross": ("十字",),
}
CHINESE_MOTIONS = {
    "left": ("向左移动", "往左移动", "向左滑动"),
    "right": ("向右移动", "往右移动", "向右滑动"),
    "up": ("向上移动", "往上移动", "上升"),
    "down": ("向下移动", "往下移动", "下落"),
    "bounce": ("弹跳", "弹跳", "上下弹跳"),
    "grow": ("变大", "逐渐变大", "越来越大"),
    "shrink": ("变小", "逐渐变小", "越来越小"),
    "still": ("静止不动", "保持不动", "一动不动"),
}
CHINESE_SENTENCES = (
    "一个{color}的{shape}在{background}背景上{motion}",
    "一个{color}的{shape}在{background}背景上{motion}",
    "{color}{shape}在{background}背景上{motion}",
    "{background}背景上，一个{color}的{shape}{motion}",
)


def captions(scene: Scene, *, seed: int) -> dict[str, str]:
    """Return the scene in both languages, at most 63 bytes of UTF-8 each; wordings are drawn from `seed`.

    Some begin with a capital or end with a full stop, as people write them.
    """
    random = Random(f"captions {seed}")
    english = random.choice(ENGLISH_SENTENCES).format(
        color=scene.color,
        shape=random.choice(ENGLISH_SHAPES[scene.shape]),
        background=scene.background,
        motion=random.choice(ENGLISH_MOTIONS[scene.motion]),
    )
    chinese = random.choice(CHINESE_SENTENCES).format(
        color=CHINESE_COLORS[scene.color],
        shape=random.choice(CHINESE_SHAPES[scene.shape]),
        background=CHINESE_COLORS[scene.background],
        motion=random.choice(CHINESE_MOTIONS[scene.motion]),
    )
    sentence = random.random() < 0.2
    if sentence:
        english, chinese = f"{english[0].upper()}{english[1:]}.", f"{chinese}。"
    return {"en": english, "zh": chinese}
