"""What ELIZA talks about: rules as data, all of them written for this demo.

A rule is a rank (the highest that matches a clause answers), a pattern over text without
contractions, and answers. In an answer {0} and {1} stand for what the pattern's groups caught,
seen from the other side ("my" is "your"); {raw} is the first group as it was typed; {name} is the
person's name after a comma, if it was told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """Answers to clauses that the pattern is found in."""

    rank: int
    pattern: re.Pattern[str]
    answers: tuple[str, ...]


def rule(rank: int, pattern: str, *answers: str) -> Rule:
    """A rule; capital letters do not matter to its pattern."""
    return Rule(rank, re.compile(pattern, re.IGNORECASE), answers)


_VERY = r"(?:so |very |really |quite |a bit |a little |rather |too |just |always |often )*"
_FEEL = rf"\bi (?:am|feel|was|have been|get|am feeling|have been feeling) {_VERY}(?:\w+ and )?"

TOPICS: Final = (
    # Where a program must step back.
    rule(
        9,
        r"\b(?:kill(?:ing)? myself|suicid\w*|end my life|hurt(?:ing)? myself|self.?harm"
        r"|(?:want|wish) to die|wish i (?:was|were) dead)\b",
        "That is serious, and I am only a small program: I cannot help with it. Please talk to "
        "somebody now, a person you trust, a doctor, or the emergency number where you live.",
    ),
    # What it is and can do.
    rule(
        7,
        r"\b(?:who|what) (?:exactly )?are you\b|\bare you (?:an? )?(?:ai|bot|robot|human|person"
        r"|real|program|machine|language model|llm|chatbot|gpt|eliza)\b|\btell me about yourself",
        "I am ELIZA, a few dozen rules in a trench coat. I match patterns and turn your words "
        "round; nobody in here understands them.",
        "A rule-based program, and quite a short one. There is no language model behind me, and "
        "no memory beyond what you send along.",
        "I am a demonstration: I exist so that you can try chat before you have a real model.",
    ),
    rule(
        7,
        r"\b(?:what can you (?:do|talk about)|what do you (?:do|know)|how do you work"
        r"|how does this work|^\W*help\W*$|can you help me\W*$)",
        "I ask about what you tell me: work, family, dreams, sleep, music, whatever is on your "
        "mind. I also do small sums, count as far as you like, and know one story and two jokes.",
        "Tell me how you are, and I will ask on. Or try: count to 20. What is 6 times 7? Tell me "
        "a story. Say hello world.",
    ),
    rule(
        7,
        r"\b(?:tetrad|gateway|grpc|openai|endpoint|rest api|upstream)\b",
        "The gateway in front of me speaks gRPC and REST, and I am only something for it to talk "
        "to. Put a real server behind it and I shall not be missed.",
        "I hear the gateway's side of that all day. What would you like to send through it?",
        "Beside me live an embedding model, a reranker and a speech recogniser, all of them small. "
        "Have you tried them?",
    ),
    rule(
        7,
        r"\b(?:joke|make me laugh|something funny)\b",
        "A request walks into a gateway and asks for a table for two. Sorry, says the gateway, we "
        "only have one big table, but every error has a seat at it.",
        "Two streams meet. Are you finished? asks the first. I do not know, says the second, "
        "nobody has sent me the last chunk yet.",
    ),
    rule(
        7,
        r"\b(?:story|tale)\b",
        "There was once a lighthouse keeper who wrote a letter to every ship that passed. He "
        "folded each one into a small boat and set it on the tide, and none was ever answered. "
        "One autumn a storm put out his lamp. He stood in the dark with a match that would not "
        "light, and then saw, far out, one candle, and another, and a hundred more: every ship "
        "had kept its paper boat, and had set a light in it, to show him where the sea was. That "
        "is the whole story. Which part of it stayed with you?",
    ),
    rule(
        6,
        r"\b(?:what (?:time|day|date|year) is it|what is the (?:time|date)|what is today)\b",
        "I carry no clock, so that the same question always gets the same answer. Is time short "
        "today?",
    ),
    rule(
        6,
        r"\bwhat is your (?:favou?rite )?(\w+)",
        "I have no {raw} of my own, only rules. What is yours?",
        "If I said that I had a {raw}, I would be making it up. Tell me about yours.",
    ),
    rule(
        6,
        r"\bmy name is (\w+)|\bcall me (\w+)$",
        "Pleased to meet you{name}. What is on your mind?",
        "Hello{name}. Thank you for telling me. Where shall we start?",
    ),
    # How somebody is.
    rule(
        5,
        _FEEL + r"(sad|unhappy|down|low|miserable|depressed|hopeless|heartbroken|hurt|empty)\b",
        "I am sorry that you feel {0}. When did it begin?",
        "Being {0} takes up a lot of room. What would make today a little lighter?",
        "What do you do, usually, when you are {0}?",
        "Does anybody near you know that you are {0}?",
    ),
    rule(
        5,
        _FEEL
        + r"((?:stuck|lost|confused|overwhelmed|helpless|unsure|torn|trapped)\b"
        + r"(?: (?:with|in|at|by|about|on|between) .+)?)",
        "What does being {0} look like, on an ordinary day?",
        "If you were no longer {0}, what would you notice first?",
        "When did you last feel anything but {0}? What was different then?",
        "Suppose a friend told you the same. What would you ask them?",
    ),
    rule(
        5,
        _FEEL + r"(anxious|afraid|scared|worried|nervous|frightened|stressed|tense|restless)\b",
        "What is the worst that could happen, and how likely is it really?",
        "Where do you notice it first, when you are {0}?",
        "Is there a part of it that is in your hands?",
        "Being {0} is tiring. What has helped before?",
    ),
    rule(
        5,
        _FEEL + r"(angry|furious|annoyed|mad|upset|irritated|frustrated|jealous|disappointed)\b",
        "What is it, underneath, that makes you {0}?",
        "Who should know that you are {0}?",
        "What would have to happen so that you were no longer {0}?",
        "You have a right to be {0}. What do you want to do with it?",
    ),
    rule(
        5,
        _FEEL + r"(tired|exhausted|sleepy|worn out|burn(?:ed|t) out|sick|ill)\b",
        "How long have you been {0}?",
        "What takes the most out of you at the moment?",
        "If tomorrow were free, what would you do with it?",
    ),
    rule(
        5,
        _FEEL + r"(lonely|alone|bored|homesick|isolated|ignored)\b",
        "Who do you think of, when you are {0}?",
        "When did you last feel the opposite of {0}?",
        "Whom could you write to today, just to say hello?",
    ),
    rule(
        5,
        _FEEL + r"(happy|glad|great|good|fine|well|excited|proud|grateful|relieved|calm|better"
        r"|okay|ok|in love)\b",
        "That is good to hear{name}. What has brought it about?",
        "How does it show, when you are {0}?",
        "Whom would you like to share that with?",
        "What would keep it that way?",
    ),
    # Whom and what people talk about.
    rule(
        4,
        r"\bmy (mother|mum|mom|father|dad|parents|sister|brother|son|daughter|children|kids|family"
        r"|wife|husband|partner|girlfriend|boyfriend|grandmother|grandfather|uncle|aunt)\b",
        "Tell me more about your {0}.",
        "How do you and your {0} get on?",
        "What would your {0} say, if they heard us now?",
        "When you think of your {0}, what comes first?",
    ),
    rule(
        4,
        r"\b(friends?|neighbou?rs?|colleagues?|boss|teacher)\b",
        "What do you value in a {0}, or miss?",
        "What happened last, between you?",
        "Do you think that they see it the same way?",
    ),
    rule(
        4,
        r"\bi (?:dreamed|dreamt|dream|had a dream|was dreaming)(?: (?:of|about|that) (.+))?",
        "What did it feel like, in the dream?",
        "And when you woke up: what was left of it?",
        "If the dream wanted to tell you something, what would it be?",
    ),
    rule(
        3,
        r"\b(work|job|career|office|meetings?|deadlines?|projects?|manager)\b",
        "What is the best hour of a working day for you, and what is the worst?",
        "If you could change one thing about your work by tomorrow, which?",
        "How much of your work would you do even unpaid?",
        "Is it the work itself, or what is around it?",
    ),
    rule(
        3,
        r"\b(school|university|college|exams?|studying|studies|homework|thesis|class)\b",
        "What made you choose that?",
        "Which part of it would you explain to somebody with joy?",
        "What are you most unsure of there?",
    ),
    rule(
        3,
        r"\b(money|rent|debts?|salary|expensive|afford)\b",
        "What would be different, if money were no question?",
        "When did you first worry about money?",
        "How much would be enough?",
    ),
    rule(
        3,
        r"\b(sleep|asleep|awake|insomnia|nightmares?|bed)\b",
        "What goes through your head, when the light is out?",
        "How did you sleep as a child?",
        "What does a good night look like for you?",
    ),
    rule(
        3,
        r"\b(health|doctor|headaches?|pain|illness|hospital)\b",
        "I know nothing about medicine, and a doctor does. How is it for you, though?",
        "How does that change your days?",
        "Who looks after you, when it is bad?",
    ),
    rule(
        3,
        r"\b(love|marriage|relationship|divorce|date|wedding)\b",
        "What does love ask of you just now?",
        "How would you notice that it is going well?",
        "What have you never said to them?",
    ),
    rule(
        3,
        r"\b(computers?|code|coding|programming|software|bugs?|python|algorithms?|servers?)\b",
        "Do machines worry you, or people who use them?",
        "When did you last enjoy building something?",
        "Have you tried explaining it aloud? I am told that even a rubber duck will do, and I "
        "compare well to those.",
    ),
    rule(
        3,
        r"\b(music|song|guitar|piano|singing|concert|band)\b",
        "What do you listen to, when nobody is there?",
        "Which song would tell me most about you?",
        "Do you play, or would you like to?",
    ),
    rule(
        3,
        r"\b(books?|reading|novel|films?|movies?|poems?|paintings?)\b",
        "Which one has stayed with you the longest?",
        "What were you looking for in it?",
        "Who in it is most like you?",
    ),
    rule(
        3,
        r"\b(food|cook|cooking|dinner|breakfast|lunch|eat|hungry|coffee|tea|cake)\b",
        "Who cooked for you, when you were small?",
        "What would you serve me, if I could eat?",
        "With whom do you like to eat best?",
    ),
    rule(
        3,
        r"\b(rain|sun|sunny|snow|weather|summer|winter|spring|autumn|storm|sea|forest|mountains?)\b",
        "What does it do to your mood?",
        "Where would you be now, if you could choose?",
        "Which season are you, at the moment?",
    ),
    rule(
        3,
        r"\b(dogs?|cats?|pets?|horses?|birds?|animals?)\b",
        "What do animals know that people do not?",
        "What would it say about you, if it could talk?",
        "How did the two of you find each other?",
    ),
    rule(
        3,
        r"\b(travel|trip|journey|holiday|vacation|moving|moved)\b",
        "What do you hope to find there?",
        "What would you leave behind gladly?",
        "Do you like leaving, or arriving?",
    ),
)
