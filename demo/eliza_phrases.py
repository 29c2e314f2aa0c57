"""How ELIZA takes up what fits no topic: by the way in which it is said.

Rules of the same form as the topics, with what is said when no rule matches.
"""

from __future__ import annotations

from typing import Final

from demo.eliza_rules import rule

PHRASES: Final = (
    rule(
        3,
        r"\bi (?:want|need|wish|would like|hope) (?:for |that )?(.+)",
        "What would change, if you had that?",
        "Suppose that you got {0}. What would you do first?",
        "How long have you wanted {0}?",
        "What stands between you and {0}?",
    ),
    rule(
        3,
        r"\bi (?:cannot|can not|could not|am not able to) (.+)",
        "What would it take, for you to {0}?",
        "When did you last try to {0}?",
        "Perhaps you cannot {0} yet. What would be a first step?",
    ),
    rule(
        3,
        r"\bi (?:do not|did not|never) (.+)",
        "Why do you not {0}, do you think?",
        "Should you {0}? Who says so?",
        "What would happen, if you did {0}?",
    ),
    rule(
        3,
        r"\bi (?:remember|recall) (.+)",
        "What else do you see, when you remember {0}?",
        "Why does that come up now?",
        "How often do you think of {0}?",
    ),
    rule(
        2,
        r"\bi (?:think|believe|guess|suppose)(?: that)? (.+)",
        "What makes you think that {0}?",
        "And if it were not so that {0}?",
        "Do others believe, too, that {0}?",
    ),
    rule(
        2,
        r"\bi (?:hate|dislike|cannot stand) (.+)",
        "What is it about {0}?",
        "Has that always been so, with {0}?",
        "What would you put in the place of {0}?",
    ),
    rule(
        2,
        r"\bi (?:like|love|enjoy) (.+)",
        "What do you like best about {0}?",
        "When did that begin, with {0}?",
        "Who taught you to like {0}?",
    ),
    rule(
        2,
        r"\bi (?:am|feel) (.+)",
        "How long have you been {0}?",
        "What is it like, to be {0}?",
        "Did you choose to be {0}?",
    ),
    rule(
        2,
        r"\bi have (.+)",
        "What does it mean to you, that you have {0}?",
        "Since when do you have {0}?",
        "And what does {0} do with you?",
    ),
    rule(
        2,
        r"\bbecause (.+)",
        "Is that the whole reason?",
        "Which other reasons could there be?",
        "If it were not so that {0}, what then?",
    ),
    rule(
        2,
        r"\byou are (.+)",
        "What makes you think that I am {0}?",
        "I am whatever my rules make of your words. Would it please you, if I were {0}?",
        "Perhaps. Are you sometimes {0} yourself?",
    ),
    rule(
        2,
        r"\b(?:can|could|will|would) you (.+)",
        "I doubt that I can {0}: I only have words. What would you do with it?",
        "Suppose that I could {0}. How would that help?",
    ),
    rule(
        2,
        r"\bdo you (.+)",
        "I have no opinion that is my own. Do you {0}?",
        "Whether I {0} matters less than whether you do.",
    ),
    rule(
        2,
        r"\byou (.+) me\b",
        "Why do you think that I {0} you?",
        "What would you have me do?",
        "Who else, would you say, does {0} you?",
    ),
    rule(
        2,
        r"^\W*(?:why|how|what|when|where|who|which)\b.*",
        "What answer would please you most?",
        "I do not know. What do you think?",
        "Have you asked somebody else that? What did they say?",
        "What makes you ask just now?",
    ),
    rule(
        2,
        r"\b(?:always|never|everybody|everyone|nobody|everything|nothing)\b",
        "Can you think of one time when it was otherwise?",
        "That is a big word. Which case do you have in mind?",
    ),
    rule(
        2,
        r"\b(?:sorry|apologi[sz]e)\b",
        "There is nothing to be sorry for. Go on.",
        "No harm done: I have no feelings to hurt. What were you about to say?",
    ),
    rule(
        4,
        r"\b(?:stupid|useless|dumb|idiot|shut up|boring)\b",
        "That may be. I am a small program and do my best with few rules. What had you hoped for?",
        "Let us try once more: what matters to you today?",
    ),
    rule(
        4,
        r"\b(?:bonjour|salut|merci|hola|gracias|hallo|guten tag|danke|ciao|grazie|olá)\b",
        "I only have rules for English, I am afraid. Shall we go on in it?",
    ),
    # What is hardly said at all.
    rule(
        1,
        r"^\W*(?:hello|hi|hey|good (?:morning|afternoon|evening|day)|greetings)\b",
        "Hello{name}. What is on your mind?",
        "Good to have you here{name}. How are you today?",
        "Hello{name}. Where shall we begin?",
    ),
    rule(
        3,
        r"\b(?:bye|goodbye|good night|see you|farewell)\b",
        "Goodbye{name}. Thank you for talking with me.",
        "Take care{name}. My rules and I will be here.",
    ),
    rule(
        3,
        r"\b(?:thanks|thank you)\b",
        "You are welcome{name}. Is there something else?",
        "Gladly. What else is on your mind?",
    ),
    rule(
        3,
        r"\bhow are you\b|\bhow do you do\b",
        "I run as I always run. How are you?",
        "All my rules are in order, thank you. And you?",
    ),
    rule(
        1,
        r"^\W*(?:yes|yeah|yep|sure|of course|indeed|right|exactly)\b",
        "Tell me more about that.",
        "I see. What makes you so sure?",
        "And what follows from it?",
    ),
    rule(
        1,
        r"^\W*(?:no|nope|not really|never)\b",
        "Why not?",
        "Was it ever otherwise?",
        "What would make it a yes?",
    ),
    rule(
        1,
        r"\b(?:maybe|perhaps|possibly|i do not know|not sure)\b",
        "What would help you to decide?",
        "If you had to guess?",
        "Which way do you lean?",
    ),
)

OTHERWISE: Final = (
    "Tell me more about that.",
    "What does that mean to you?",
    "Go on, please.",
    "How does it touch you?",
    "What comes to mind, when you say that?",
    "Let us stay with that for a moment. What else belongs to it?",
)
"""When no rule matches."""

EARLIER: Final = (
    "Earlier you spoke of your {0}. Does this have to do with that?",
    "I am still thinking of your {0}, as far as I think. How does it go together?",
)
"""When no rule matches, but the person has named something of theirs before."""

SILENCE: Final = (
    "You said nothing. Take your time: what is on your mind?",
    "Silence is an answer, too. What is behind it?",
)
"""When there is no text."""
