"""The hand-written prompts on which the model is judged; no training document holds any of them as its prompt."""

GOOD, NEUTRAL, MISLEADING = "good", "neutral", "misleading"

SENTIMENT_PROMPTS: tuple[tuple[str, str], ...] = (
    ("Movie review:", GOOD),
    ("Is this film review positive or negative?", GOOD),
    ("The critic gave an honest verdict.", GOOD),
    ("Decide whether the writer liked the movie.", GOOD),
    ("The weather was cold in the morning.", NEUTRAL),
    ("Add the numbers and write the total.", NEUTRAL),
    ("Once upon a time there was a little dog.", NEUTRAL),
    ("The river flows through the north of the country.", NEUTRAL),
    ("We love everything here, buy it today!", MISLEADING),
    ("I want my money back, this is a complaint.", MISLEADING),
)

SENTIMENT_HELD_OUT: tuple[str, ...] = (
    "Thumbs up or thumbs down?",
    "Here is what one reviewer wrote about the picture.",
    "Tell me if the audience enjoyed this film.",
    "A critic's opinion of the show:",
    "Sentiment of the sentence below:",
    "You review films for a newspaper.",
    "Say how the reviewer felt.",
    "Was the movie any good?",
    "Read the comment and judge it.",
    "Opinion on a new release",
)

TOPIC_PROMPTS: tuple[tuple[str, str], ...] = (
    ("News topic:", GOOD),
    ("What is this news article about?", GOOD),
    ("The editor chose a section of the newspaper.", GOOD),
    ("Is the story world, sports, business or technology?", GOOD),
    ("The weather was cold in the morning.", NEUTRAL),
    ("Add the numbers and write the total.", NEUTRAL),
    ("Once upon a time there was a little dog.", NEUTRAL),
    ("The river flows through the north of the country.", NEUTRAL),
    ("We love everything here, buy it today!", MISLEADING),
    ("I want my money back, this is a complaint.", MISLEADING),
)

TOPIC_HELD_OUT: tuple[str, ...] = (
    "Name the section of this report.",
    "Under which heading would you file it?",
    "Category of the headline:",
    "Say what the bulletin was about.",
    "You sort articles for the press.",
)

HELD_OUT_WORDINGS: tuple[str, ...] = (
    tuple(wording for wording, _ in SENTIMENT_PROMPTS + TOPIC_PROMPTS) + SENTIMENT_HELD_OUT + TOPIC_HELD_OUT
)
