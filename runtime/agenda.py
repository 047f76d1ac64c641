"""How far a plan has come: its steps, one after the other, each looked at, done, and told to be over.

look    the policy is asked whether what is named is there; nothing is played
return  the arm goes to where it began, so that its cameras see the table
do      the policy plays; its own head says when the step is done, a clock when it is given up
leave   the policy plays on for a moment: to let go, and to get away
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from runtime.looking import Look, stands
from runtime.skills import Wish
from vla.contract import ActionChunk, Observation, RobotSpec


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    Attributes:
        text: the instruction as the policy is told it.
        state: waiting, running, done, failed or dropped.
    """

    text: str
    state: str = "waiting"


@dataclass(frozen=True)
class Patience:
    """When a step counts as what.

    Attributes:
        done: its probability, from which an answer says so.
        answers: how many have to say so one after the other.
        leave: s that the policy goes on after that at most, to let go and get away.
        away: rad or m from where it began, within which it has got away.
        allowed: s for one try, at the policy's own pace.
        tries: of a step.
        absent: answers one after the other that move nothing, from which what is named is not there.
        home: s for the way back to where the arm began. near: rad or m, what counts as being there.
    """

    done: float = 0.5
    answers: int = 3
    leave: float = 2.5
    away: float = 0.25
    allowed: float = 10.0
    tries: int = 2
    absent: int = 3
    home: float = 3.0
    near: float = 0.08


class Phase(enum.Enum):
    IDLE = "idle"
    RETURN = "return"
    LOOK = "look"
    DO = "do"
    LEAVE = "leave"


ABSENT = "I do not see everything that it names"


def _why_nothing(look: Look) -> str:
    """Why nothing of what a wish names was found, as far as that can be told."""
    if look.wish.each:
        return "I see none of them"
    missing = f"I do not see {look.missing}" if look.missing else ABSENT
    return f"it looks done already, or {missing}" if look.fulfilled else missing


class Agenda:
    """A plan that is carried out. Not shared between threads.

    Attributes:
        plan: its steps; those of the plan before stay until the next one begins.
        phase: what is done about the step that runs. paused: told to wait.
        tells: whether the policy says when a step is done.
        last: the instruction that was given last. open: what a question of ours is about.
        plays, pose: see `Instructions`.
    """

    def __init__(
        self,
        say: Callable[[str, float], str],
        patience: Patience | None = None,
        robot: RobotSpec | None = None,
    ) -> None:
        """
        Args:
            say: takes a line for people, and when, s.
            robot: the body, for the way back to where it began; None: it stays where it is.
        """
        self.plan: tuple[Step, ...] = ()
        self.phase, self.paused = Phase.IDLE, False
        self.last, self.open = "", []  # type: str, list[str]
        self.pace, self.plays = 1.0, True
        self.pose: np.ndarray | None = None
        self._say, self.patience = say, patience or Patience()
        self._returns = robot is not None and robot.state == robot.actions.names
        names = () if robot is None else robot.actions.names
        self._grips = np.array(["gripper" in name for name in names], bool)
        self._wishes: dict[str, Wish] = {}
        self._optional: set[str] = set()  # of "all of them"; one that is gone by now is left out
        self._seen: set[str] = set()  # what the policy was asked about
        self._before: set[str] = set()  # what is done before another step, with the hand where it is
        self.left: list[str] = []  # what a failure left undone
        self.tells = False
        self._look: Look | None = None
        self._start: np.ndarray | None = None  # where the arm began, shape (S,)
        self._rows: np.ndarray | None = None  # of the newest answer, shape (H, A)
        self._since, self._answered = 0.0, -np.inf
        self._try = self._agreed = self._empty = 0
        self._moved, self._far = False, 0.0

    @property
    def step(self) -> Step | None:
        """The step that runs."""
        return next((step for step in self.plan if step.state == "running"), None)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return not any(step.state in ("waiting", "running") for step in self.plan)

    # -- what people change

    def begin(self, wishes: list[Wish], now: float) -> None:
        """A new plan in place of what is left of the old one."""
        busy = not self.over
        self._keep(wishes)
        self._seen, self._before, self.left = set(), set(), []
        self.plan = tuple(Step(wish.text) for wish in wishes)
        # An arm at work turns to what it is told now; one that has stood goes where it can see first.
        self._next(now, home=not busy)

    def add(self, wishes: list[Wish]) -> None:
        """More steps at the end of the plan."""
        self._keep(wishes)
        self.plan += tuple(Step(wish.text) for wish in wishes)

    def turn(self, wishes: list[Wish], now: float) -> None:
        """Other steps in place of the one that runs, at once: the hand is in the air and is not led home."""
        self._keep(wishes)
        after = tuple(step for step in self.plan if step.state == "waiting")
        self._set("dropped")
        self.plan = tuple(step for step in self.plan if step.state != "waiting")
        self.plan += tuple(Step(wish.text) for wish in wishes) + after
        self._next(now, home=False)

    def drop(self) -> None:
        """Nothing is left to do."""
        self.plan = tuple(
            replace(s, state="dropped") if s.state in ("waiting", "running") else s for s in self.plan
        )
        self.phase, self.paused = Phase.IDLE, False

    def wait(self) -> None:
        self.paused = not self.over

    def go_on(self, now: float) -> None:
        """After `wait`: the time allowed for the step begins anew."""
        self.paused = False
        self._enter(self.phase, now)

    def told_done(self, now: float) -> None:
        """A person says that the step is done."""
        self._set("done")
        self._enter(Phase.LEAVE, now)

    def _keep(self, wishes: list[Wish]) -> None:
        self.paused, self.open = False, []
        known = {
            wish.text: wish for wish in wishes if wish.each or wish.probes or wish.text not in self._wishes
        }
        self._wishes |= known

    # -- what the loop asks

    def ask(self, seen: Observation, now: float, answer: ActionChunk | None) -> str | None:
        """See `Instructions`."""
        if self._start is None:
            self._start, self._since = np.array(seen.state, float), now
        self.pose, self.plays = None, True
        if self.paused or self.phase is Phase.IDLE:
            return None
        if answer is not None and answer.time <= self._answered:
            answer = None  # it was looked at before
        if answer is not None:
            self._answered, self._rows = answer.time, answer.actions
        if self.phase is Phase.RETURN:
            self._returning(seen, now)
        elif self.phase is Phase.LOOK:
            self._looking(answer, now)
        elif self.phase is Phase.DO:
            self._doing(answer, seen, now)
        else:
            self._leaving(seen, now)
        return self._instruction()

    def _instruction(self) -> str | None:
        """What the phase wants that was come to."""
        if self.phase is Phase.RETURN:
            self.pose = self._home()
            return None
        if self.phase is Phase.LOOK and self._look is not None:
            self.plays = False
            return self._look.probe
        if self.phase in (Phase.DO, Phase.LEAVE):
            self._moved = True
            return self.last
        return None

    def _home(self) -> np.ndarray:
        """Where the arm began, with what is in the hand held as it is."""
        assert self._start is not None
        return self._start if self._rows is None else np.where(self._grips, self._rows[-1], self._start)

    def _leaving(self, seen: Observation, now: float) -> None:
        """The policy knows how to leave what it did; a straight way back might sweep it off the table."""
        took, p = (now - self._since) * self.pace, self.patience
        gone = self._returns and took >= 0.2 * p.leave and self._away(seen) < p.away
        if gone or took >= p.leave:
            self._next(now)

    def _away(self, seen: Observation) -> float:
        """How far the arm is from where it began, the hand left out."""
        assert self._start is not None
        return float(np.abs(np.asarray(seen.state, float) - self._start)[~self._grips].max())

    def _returning(self, seen: Observation, now: float) -> None:
        if self._away(seen) < self.patience.near or now - self._since > self.patience.home:
            self._moved = False
            self._look_or_do(now)

    def _look_or_do(self, now: float) -> None:
        step = self.step
        assert step is not None
        self.last, self._far = step.text, 0.0
        if self._try or not self._look_at(step, now):
            self._enter(Phase.DO, now)

    def _look_at(self, step: Step, now: float) -> bool:
        """Ask whether what a step names is there, where that can be told and was not yet.

        An arm at work hides things from its cameras, and may have thrown some over: single things are
        looked for before anything moves, all those of a plan together.
        """
        wish = self._wishes.get(step.text)
        if wish is None or not wish.probes or step.text in self._seen or (self._moved and not wish.each):
            return False
        self._look = Look(wish)
        self._enter(Phase.LOOK, now)
        return True

    def _looking(self, answer: ActionChunk | None, now: float) -> None:
        look = self._look
        assert look is not None
        if answer is None:
            return
        done = (answer.done or 0.0) >= self.patience.done
        if not look.take(stands(answer), done):
            return
        self._seen.add(look.wish.text)
        if not look.found:
            self._fail(_why_nothing(look), now, look.wish.text)
        elif look.wish.each and len(look.choices) > 1:
            self._fail(f"which one: {' or '.join(look.choices)}?", now)
            self.open = look.found
        elif look.wish.each:
            self._found(look.found, now)
        else:
            later = (s for s in self.plan if s.state == "waiting" and not self._wishes[s.text].each)
            if self._moved or not any(self._look_at(step, now) for step in later):
                self._enter(Phase.DO, now)

    def _found(self, texts: list[str], now: float) -> None:
        """What was meant by "all of them" is there: each becomes a step."""
        of_all = self.step
        assert of_all is not None
        first = self._wishes[of_all.text].firsts
        self._keep([Wish(text, first=first.get(text, "")) for text in texts])
        at = next(i for i, step in enumerate(self.plan) if step.state == "running")
        self.plan = self.plan[:at] + tuple(map(Step, texts)) + self.plan[at + 1 :]
        if len(texts) > 1:
            self._optional |= set(texts)
            self._say(f"I see {len(texts)}: {'; '.join(texts)}", now)
        self._next(now, home=False)

    def _doing(self, answer: ActionChunk | None, seen: Observation, now: float) -> None:
        p = self.patience
        if self._returns:
            self._far = max(self._far, self._away(seen))
        if answer is not None:
            self.tells = answer.done is not None
            if not self.tells:  # a policy that cannot tell is not given up
                self._since = now
            self._agreed = self._agreed + 1 if (answer.done or 0.0) >= p.done else 0
            self._empty = self._empty + 1 if stands(answer) and not self._try else 0
        if self._agreed >= p.answers:
            self._done(now)
        elif self._empty >= p.absent and self.last in self._optional:
            self._set("dropped")
            self._say(f"left out, I do not see it any more: {self.last}", now)
            self._next(now)
        elif self._empty >= p.absent and self.last in self._seen and not self._begun:
            self._fail(ABSENT, now)
        elif now - self._since > p.allowed / self.pace:
            self._give_up(now)

    @property
    def _begun(self) -> bool:
        """Whether a step of the plan is done, after which the table is another."""
        return any(step.state == "done" for step in self.plan)

    def _done(self, now: float) -> None:
        wish, first = self._wishes.get(self.last), self.last in self._before
        unmoved = self._returns and self._far < self.patience.away
        if wish is not None and wish.first and unmoved and wish.first not in self._before:
            self._insert(wish.first, now)
            return
        self._set("done")
        self._say(f"done: {self.last}", now)
        if first:
            self._next(now, home=False)
        else:
            self._enter(Phase.LEAVE, now)

    def _insert(self, first: str, now: float) -> None:
        """The policy takes a step for done, and the hand has been nowhere: something else before it."""
        self._say(f"it looks done and is not, as the hand has not moved; first: {first}", now)
        self._before.add(first)
        at = next(i for i, step in enumerate(self.plan) if step.state == "running")
        steps = (Step(first, "running"), Step(self.last))
        self.plan = self.plan[:at] + steps + self.plan[at + 1 :]
        self.last, self._try = first, 0
        self._enter(Phase.DO, now)

    def _give_up(self, now: float) -> None:
        self._try += 1
        spent = f"not done after {self.patience.allowed:g} s"
        if self._try < self.patience.tries:
            self._say(f"{spent}, trying again: {self.last}", now)
            self._enter(Phase.RETURN if self._returns else Phase.DO, now)
        else:
            self._fail(f"{spent}, {self._try} times", now)

    # -- how a plan goes on

    def _next(self, now: float, home: bool = True) -> None:
        step = next((s for s in self.plan if s.state == "waiting"), None)
        if step is None:
            self._enter(Phase.IDLE, now)
            return
        self.plan = tuple(replace(s, state="running") if s is step else s for s in self.plan)
        self._try = 0
        wish = self._wishes.get(step.text)
        home = home or (wish is not None and bool(wish.each))  # which are there is told from where it began
        if home and self._moved and self._returns:
            self._enter(Phase.RETURN, now)
        else:
            self._look_or_do(now)

    def _fail(self, why: str, now: float, text: str = "") -> None:
        """The plan ends at a step, the one that runs or (by its text) one that waits."""
        text = text or self.last
        at = next(i for i, s in enumerate(self.plan) if s.text == text and s.state in ("running", "waiting"))
        self.plan = tuple(replace(s, state="failed") if i == at else s for i, s in enumerate(self.plan))
        left = [step.text for step in self.plan if step.state in ("running", "waiting")]
        self.drop()
        self.left = left
        more = f"; left undone: {'; '.join(left)} (say go on)" if left else ""
        self._say(f"failed: {text}: {why}{more}", now)

    def _set(self, state: str) -> None:
        """What becomes of the step that runs."""
        self.plan = tuple(replace(s, state=state) if s.state == "running" else s for s in self.plan)

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase, self._since, self._agreed, self._empty = phase, now, 0, 0
