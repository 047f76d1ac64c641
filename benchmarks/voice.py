"""Spoken instructions: made by espeak-ng, recognised offline, carried out by the shipped policy.

    python benchmarks/voice.py --json benchmarks/results/voice.json

Needs espeak-ng (apt-get install espeak-ng) and the extra `voice`. A synthetic voice is not a person in a
workshop: this says that the way from sound to motion works, and no more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from free_words import SEED, said  # benchmarks/free_words.py

from runtime import voice
from runtime.latency import parse
from runtime.machine import machine
from runtime.whisper import Decoder
from sim.evaluate import SHIPPED
from sim.play import Options, Worker
from sim.score import score
from sim.tabletop.skills import SKILLS

VOICE = ("en-us", "140")  # and words a minute
SPOKEN = (
    ("put the red cube in the blue bowl", ["put the red cube in the blue bowl"]),
    ("stack the red cube on the blue cube", ["stack the red cube on the blue cube"]),
    ("push the yellow cylinder to the left", ["push the yellow cylinder to the left"]),
    ("touch the white ball", ["touch the white ball"]),
    ("lift the green cube", ["lift the green cube"]),
    ("place the purple ball in the white bowl", ["put the purple ball in the white bowl"]),
    ("slide the green cube to the red zone", ["push the green cube to the red zone"]),
    ("take the blue cylinder", ["lift the blue cylinder"]),
    ("drop the yellow cube into the green bowl", ["put the yellow cube in the green bowl"]),
    ("pick up the red ball", ["lift the red ball"]),
    ("tap the purple cube", ["touch the purple cube"]),
    ("move the white cube to the right", ["push the white cube to the right"]),
    ("please lift the yellow ball", ["lift the yellow ball"]),
    ("put the blue can in the red dish", ["put the blue cylinder in the red bowl"]),
    ("stack the green block on the red cylinder", ["stack the green cube on the red cylinder"]),
    ("touch the green cylinder", ["touch the green cylinder"]),
    ("put the white ball in the yellow bowl", ["put the white ball in the yellow bowl"]),
    ("grab the purple cylinder", ["lift the purple cylinder"]),
    ("push the red cube to the left", ["push the red cube to the left"]),
    ("touch the red cube then lift the blue ball", ["touch the red cube", "lift the blue ball"]),
)
WORDS = ("stop", "wait", "go on", "faster", "slower", "no the blue one")


def spoken(text: str, made: Decoder) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        subprocess.run(["espeak-ng", "-v", VOICE[0], "-s", VOICE[1], "-w", str(path), text], check=True)
        return voice.transcribe(voice.samples(path), made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    made = voice.decoder(SKILLS)
    w = Worker(Options("tabletop", str(SHIPPED), "seen", False, parse("0ms"), None, 30.0))
    rows: list[dict[str, Any]] = []
    for i, (text, wanted) in enumerate(SPOKEN):
        heard = " ".join(spoken(text, made))
        row = said(w, SEED + 1000 + i, heard, wanted)
        meant = [wish.text for wish in SKILLS.read(heard).wishes] == wanted
        rows.append({"spoken": text, "heard": heard, "exact": heard == text, "meant": meant} | row)
        if not (meant and row["success"]):
            print(f"{text!r} -> {heard!r}: {row['plan'] or row['said'][0]}")
    words = [{"spoken": text, "heard": " ".join(spoken(text, made))} for text in WORDS]
    report: dict[str, Any] = {
        "machine": machine(), "voice": VOICE, "words": words,
        "exact": score([row["exact"] for row in rows]), "meant": score([row["meant"] for row in rows]),
        "success": score([row["success"] for row in rows]), "sentences": rows,
    }  # fmt: skip
    for key in ("exact", "meant", "success"):
        print(key, f"{report[key]['k']}/{report[key]['n']}", report[key]["ci95"])
    print([row["heard"] for row in words])
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
