"""German and Chinese words for what can be said on the tabletop, replaced one by one, in this order.

Enough for the sentences that people type to a robot, and no more: what is not here stays as it is.
"""

from __future__ import annotations

import re


def _table(text: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Rows "pattern -> words"."""
    rows = [row.split("->") for row in text.strip().splitlines()]
    return tuple((re.compile(pattern.strip()), words.strip()) for pattern, words in rows)


_END = "(?:e[nrsm]?)?"
# A sentence is German when two of these are in it.
_MARKS = re.compile(
    r"\b(?:den|dem|der|das|einen|einem|eine|und|dann|bitte|auf|nach|alle|nimm|leg\w*|stell\w*|heb\w*"
    r"|schieb\w*|ber(?:ü|ue)hr\w*|w(?:ü|ue)rfel|sch(?:ü|ue)ssel|kugel|zylinder|lila"
    rf"|(?:rot|blau|gr(?:ü|ue)n|gelb|wei(?:ß|ss)){_END})\b"
)
_GERMAN = _table(
    rf"""
    \b(\w+) dann (den|die|das|dem|einen)\b                  -> dann \1 \2
    \bhebe? (.+?) (?:hoch|an|auf)\b                         -> lift \1
    \b(?:fasse?|tippe?) (.+?) an\b                          -> touch \1
    \b(?:und )?(?:dann|danach|anschließend)\b               -> then
    \b(?:ganz )?(?:nach|auf die) (?:linke seite|links)\b    -> to the left
    \b(?:ganz )?(?:nach|auf die) (?:rechte seite|rechts)\b  -> to the right
    \b(?:alle|sämtliche)\b                                  -> all
    \balles\b                                               -> everything
    \b(?:bitte|mal|doch)\b                                  -> please
    \b(?:nimm|greife?|nehme)\b                              -> take
    \b(?:hebe?|hochheben|anheben)\b                         -> lift
    \b(?:lege?|tue?|packe?|wirf|werfe|gib|schmeiß|bringe?)\b -> put
    \b(?:stelle?|setze?)\b                                  -> put
    \b(?:stapele?|staple|stapeln)\b                         -> stack
    \b(?:schiebe?|drücke?|schubse?)\b                       -> push
    \b(?:ber(?:ü|ue)hre?|antippen|tippe?|anfassen)\b        -> touch
    \b(?:den|dem|der|das|die|einen|einem|einer|eine|ein)\b  -> the
    \brot{_END}\b                                           -> red
    \bblau{_END}\b                                          -> blue
    \bgr(?:ü|ue)n{_END}\b                                   -> green
    \bgelb{_END}\b                                          -> yellow
    \b(?:lila(?:ne?n)?|violett{_END})\b                     -> purple
    \bwei(?:ß|ss){_END}\b                                   -> white
    \b(?:w(?:ü|ue)rfeln?|klotz|bauklotz)\b                  -> cube
    \bklötze\b                                              -> cubes
    \b(?:zylindern?|dose|walze)\b                           -> cylinder
    \bkugel\b                                               -> ball
    \b(?:kugeln|bälle)\b                                    -> balls
    \b(?:sch(?:ü|ue)sseln?|schale|napf)\b                   -> bowl
    \b(?:feld|quadrat|fläche)\b                             -> zone
    \b(?:ins|hinein)\b                                      -> in
    \b(?:auf|oben drauf)\b                                  -> on
    \bund\b                                                 -> and
    \b(?:zum|zur|zu|nach)\b                                 -> to
    \blinks\b                                               -> left
    \brechts\b                                              -> right
    \bhoch\b                                                -> up
    \b(?:es|ihn|sie)\b                                      -> it
    """
)
_CJK = re.compile(r"[\u4e00-\u9fff]")
_CHINESE = _table(
    r"""
    (?:放|叠|堆|摞|搁)(?:到|在|上)?([^放推里进入，,。然]+?)(?:的?上面|的?顶上|的?上) -> stack on \1 
    (?:放|装|扔|丢)(?:到|在|进|入|进去)?      -> put in
    (?:叠|堆|摞)(?:到|在)?                    -> stack on
    推到|推向|往|向|移到|推                   -> push to
    最?左边?的                                -> leftmost
    最?右边?的                                -> rightmost
    左边|左侧|左                              -> the left
    右边|右侧|右                              -> the right
    (?:拿|举|抬|提|抓)(?:起来?|住)?           -> lift
    触摸|(?:摸|碰|点)一?下?                   -> touch
    (?:所有|全部)的?|每个                     -> all
    然后|接着|再|之后                         -> then
    红色?                                     -> red
    蓝色?                                     -> blue
    绿色?                                     -> green
    黄色?                                     -> yellow
    紫色?                                     -> purple
    白色?                                     -> white
    方块|立方体|积木                          -> cube
    圆柱体?|罐子|柱子                         -> cylinder
    球                                        -> ball
    碗|盆|盘子                                -> bowl
    区域|方格                                 -> zone
    [那这一]个                                -> the
    请|一下|把|将|的|里面|里|中|去|来|吧|先|个|色|起 ->
    """
)


def english(text: str) -> str:
    """The text with its German or Chinese words in English; lower case, without quotes."""
    if _CJK.search(text):
        return _replaced(text.replace("，", ",").replace("。", "."), _CHINESE, " ")
    return _replaced(text, _GERMAN, "") if len(_MARKS.findall(text)) >= 2 else text


def _replaced(text: str, table: tuple[tuple[re.Pattern[str], str], ...], around: str) -> str:
    for pattern, words in table:
        text = pattern.sub(f"{around}{words}{around}", text)
    return re.sub(r"\s+", " ", text).strip()
