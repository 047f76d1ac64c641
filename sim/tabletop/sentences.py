"""The sentences of the tabletop with their slots open, for training ("seen") and held out ("phrasings").

{do} is the verb with the thing, {it} the verb with "it", {v} the verb alone, {take} the first of two steps
with the thing; {x} the thing, {y} the way to the place, {to} the place itself. One that is listed twice is
said twice as often.
"""

from __future__ import annotations

from sim.tabletop.wordings import Words

# Around what is asked for.
ASKS: dict[str, Words] = {
    "seen": (
        "{}", "{}", "{}", "{}", "please {}", "{} please", "{}, please", "can you {}?", "could you {}?",
        "could you please {}", "will you {}?", "robot, {}", "now {}", "next, {}", "ok, {}",
        "i want you to {}", "go and {}", "go ahead and {}", "try to {}", "your task is to {}",
        "hey robot, {}", "just {}", "it would be nice to {}", "first, {}", "quickly {}", "let me see you {}",
        "would you please {}", "you have to {}", "do the following: {}", "my wish: {}", "{} at once",
        "{}, robot", "{} carefully",
    ),
    "phrasings": (
        "kindly {}", "i need you to {}", "your job: {}", "let's {}", "would you {} for me?",
        "i would like you to {}", "be so kind as to {}", "{}, thanks", "{} when you can", "it is time to {}",
        "you should {}", "the goal is to {}", "may i ask you to {}?", "{} for me",
    ),
}  # fmt: skip
# Of what is taken to a place, and of what is pushed.
_CARRIED = (
    "{do} {y}", "{do} {y}", "{do} {y}", "{take} and {it} {y}", "{take}, then {it} {y}",
    "find {x} and {it} {y}", "{do} so that it is {y}", "look for {x}, then {it} {y}",
    "with the gripper, {do} {y}", "{it} {y}: {x}",
)  # fmt: skip
_PUSHED = (
    "{do} {y}", "{do} {y}", "{do} {y}", "find {x} and {it} {y}", "approach {x} and {it} {y}",
    "give {x} a push {y}", "make {x} slide {y}", "make {x} go {y}", "look for {x}, then {it} {y}",
)  # fmt: skip
# What can be asked for.
CLAUSES: dict[str, dict[str, Words]] = {
    "put": {
        "seen": (
            *_CARRIED, "move {x} to {to}", "approach {x}, then {it} {y}", "load {to} with {x}",
            "supply {to} with {x}",
        ),
        "phrasings": (
            "{do} {y}", "{do} {y}", "{take} before you {it} {y}", "locate {x} and {it} {y}",
            "fill {to} with {x}",
        ),
    },
    "stack": {
        "seen": (
            *_CARRIED, "top {to} with {x}", "build a tower with {x} {y}", "load {to} with {x}",
            "supply {to} with {x}",
            "make a tower of {x} {y}",
        ),
        "phrasings": (
            "{do} {y}", "{do} {y}", "{take} before you {it} {y}", "locate {x} and {it} {y}",
        ),
    },
    "side": {
        "seen": _PUSHED,
        "phrasings": (
            "{do} {y}", "{do} {y}", "locate {x} and {it} {y}", "identify {x} and {it} {y}",
            "have {x} travel {y}",
        ),
    },
    "zone": {
        "seen": _PUSHED,
        "phrasings": (
            "{do} {y}", "{do} {y}", "locate {x} and {it} {y}", "identify {x} and {it} {y}",
            "have {x} travel {y}",
        ),
    },
    "touch": {
        "seen": (
            "{do}", "{do}", "{do}", "find {x} and {it}", "approach {x} and {it}", "reach out and {do}",
            "use the gripper to {do}", "{do} with the gripper", "{do} once", "move your hand to {x} and {it}",
            "look for {x}, then {it}", "{do} with a finger",
        ),
        "phrasings": (
            "{do}", "{do}", "locate {x} and {it}", "identify {x} and {it}",
            "{do} gently", "{do} using your hand",
        ),
    },
    "lift": {
        "seen": (
            "{do}", "{do}", "{do}", "find {x} and {it}", "approach {x} and {it}", "use the gripper to {do}",
            "{do} with the gripper", "{do} and hold it", "{do} off the table",
        ),
        "phrasings": (
            "{do}", "{do}", "locate {x} and {it}", "identify {x} and {it}", "{do} from the table",
            "{do} using your hand",
        ),
    },
}  # fmt: skip
# Whole sentences that ask for nothing, or turn the order round.
SAYINGS: dict[str, dict[str, Words]] = {
    "put": {
        "seen": (
            "{y}, {do}", "{x} {y}", "{x} goes {y}", "{x} belongs {y}", "{x} should be {y}", "i want {x} {y}",
            "{to} should hold {x}", "{to} gets {x}", "{to} is for {x}", "{to} is the place for {x}",
            "{y} goes {x}",
            "{x} must be {y}", "{x} has its place {y}", "i need {x} {y}", "{to} wants {x}",
            "{x}: {it} {y}", "{y} with {x}", "{y} i want {x}", "{y} belongs {x}", "where is {x}? {it} {y}",
        ),
        "phrasings": (
            "i would like {x} to end up {y}", "make sure {x} is {y}", "{to} is where {x} has to be",
            "{to} needs {x} inside", "{x} is meant to be {y}", "{y} is where you {do}",
        ),
    },
    "stack": {
        "seen": (
            "{y}, {do}", "{x} {y}", "{x} goes {y}", "{x} belongs {y}", "{x} should be {y}", "i want {x} {y}",
            "{to} should hold {x}", "{to} gets {x} on top", "{to} should carry {x}", "{to} is under {x}",
            "{y} goes {x}",
            "{x} must be {y}", "{x} has its place {y}", "i need {x} {y}",
            "{x}: {it} {y}", "{y} comes {x}", "{y} i want {x}", "{y} belongs {x}", "where is {x}? {it} {y}",
            "{to} holds {x}",
        ),
        "phrasings": (
            "i would like {x} to end up {y}", "make sure {x} is {y}", "{to} is the base for {x}",
            "{to} needs {x} on it", "{x} is meant to be {y}", "{y} is where you {do}",
        ),
    },
    "side": {
        "seen": (
            "{y}, {do}", "{x} {y}", "{x} goes {y}", "{x} should go {y}", "i want {x} {y}",
            "{x} must move {y}", "{y} with {x}", "{x} has its place {y}",
            "i need {x} {y}", "where is {x}? {it} {y}",
        ),
        "phrasings": (
            "i would like {x} to end up {y}", "make sure {x} ends up {y}", "{x} is meant to travel {y}",
            "{y} is where you {do}",
        ),
    },
    "zone": {
        "seen": (
            "{y}, {do}", "{x} {y}", "{x} goes {y}", "{x} belongs {y}", "{x} should go {y}", "i want {x} {y}",
            "{to} should hold {x}", "{to} is for {x}", "{to} gets {x}", "{x} must move {y}", "{y} goes {x}",
            "{y} with {x}", "i need {x} {y}", "{to} is the place for {x}", "{y} i want {x}",
            "where is {x}? {it} {y}",
        ),
        "phrasings": (
            "i would like {x} to end up on {to}", "make sure {x} ends up on {to}",
            "{x} is meant to travel {y}", "{to} is where {x} has to be", "{to} is where you {do}",
        ),
    },
    "touch": {
        "seen": (
            "{x}: {it}", "where is {x}? {it}", "i want {x} touched", "{x} needs a tap", "find {x}, then {it}",
            "{x} is the thing to {v}", "it is {x} that i want you to {v}", "{v}: {x}",
        ),
        "phrasings": (
            "see {x}? {it}", "{x} is what you should {v}", "do you see {x}? {it}", "{x} is the one to {v}",
        ),
    },
    "lift": {
        "seen": (
            "{x}: {it}", "where is {x}? {it}", "{x} goes up", "i want {x} in the air",
            "{x} should be in the air", "up with {x}",
            "i want {x} lifted", "{x} is the thing to {v}", "{v}: {x}",
        ),
        "phrasings": (
            "see {x}? {it}", "{x} is what you should {v}", "i would like {x} above the table",
            "{x} is meant to be airborne",
        ),
    },
}  # fmt: skip
