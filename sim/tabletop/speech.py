"""What is likely to be spoken on the tabletop, as a JSGF grammar for a recogniser.

Fewer ways to say a thing than can be typed: each further word is one more that may be taken for another.
"""

from __future__ import annotations

from sim.tabletop.meaning import COLOURS

_NOUNS = "cube | block | cylinder | can | ball"
RULES = f"""
<colour> = {" | ".join(COLOURS)};
<noun> = {_NOUNS};
<which> = left | right | nearest | farthest;
<thing> = [the] [<which>] <colour> <noun>;
<things> = (all the | every | all) (cubes | balls | cylinders | cube | ball | cylinder) | everything;
<bowl> = (in | into) (the | a) [<colour>] (bowl | dish);
<zone> = (to | into | onto) the <colour> (zone | square);
<side> = [over] to the (left | right);
<task> = (put | place | drop) (<thing> | <things>) <bowl>
       | (stack | put | place) <thing> (on | on top of) <thing>
       | (push | slide | move) <thing> (<zone> | <side>)
       | (touch | tap) <thing>
       | (lift | lift up | pick up | take | grab) <thing>;
<change> = (the | put) [the] <colour> (one | <noun>) | <bowl> | <side>;
"""
