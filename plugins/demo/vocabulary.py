"""The words that the shipped model was trained on, and hints about words that it does not know."""

from __future__ import annotations

import re
from itertools import chain

from framefleet.api.texts import nearest

SHAPES = ("ball", "square", "triangle", "star", "ring")
COLORS = ("red", "green", "blue", "yellow", "cyan", "purple", "white", "black")  # the corners of RGB
MOTIONS = ("left", "right", "up", "down", "bounce", "grow", "shrink", "still")

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
    "a {color} {shape} {motion} on a {background} background",  # twice, as most people type this
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
_TYPO = 0.85  # gren is green, two is not to
_SLOT = re.compile(r"\{\w+\}")
_WORD = re.compile(r"[^\W\d_\u4e00-\u9fff]+")
_CHINESE = re.compile(r"[\u4e00-\u9fff]+")


def unknown_words(prompt: str) -> list[str]:
    """Return the words of a prompt that were not in the model's training captions, in order."""
    english = [word for word in _WORD.findall(prompt.lower()) if word not in _ENGLISH]
    chinese = _CHINESE.findall(_CHINESE_TERM.sub(" ", prompt))
    return list(dict.fromkeys([*english, *chinese]))


def hint_about(prompt: str) -> str | None:
    """Return a hint about a prompt with words that the model does not know, or None."""
    unknown = unknown_words(prompt)
    if not unknown:
        return None
    words = []
    for word in unknown:
        near = nearest(word, _ENGLISH, cutoff=_TYPO)
        words.append(f"{word} ({near[0]}?)" if near else word)
    return (
        f"the model was never trained on {', '.join(words)}; it knows "
        f"{_listed(SHAPES)} in {_listed(COLORS)} that move left, right, up or down, bounce, grow, shrink or "
        "stay still"
    )


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


_PHRASES = (
    COLORS,
    ENGLISH_SENTENCES,
    *(ENGLISH_SHAPES[shape] for shape in SHAPES),
    *ENGLISH_MOTIONS.values(),
)
_ENGLISH = frozenset(word for phrase in chain(*_PHRASES) for word in _SLOT.sub("", phrase).split())
_TERMS = {
    *(CHINESE_COLORS[color] for color in COLORS),
    *chain(*map(_SLOT.split, CHINESE_SENTENCES)),
    *chain(*(CHINESE_SHAPES[shape] for shape in SHAPES), *CHINESE_MOTIONS.values()),
}
_LONGEST_FIRST = sorted(_TERMS - {""}, key=len, reverse=True)
_CHINESE_TERM = re.compile("|".join(map(re.escape, _LONGEST_FIRST)))
