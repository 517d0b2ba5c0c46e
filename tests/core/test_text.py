"""Facts of summaries and campaigns, as lines and as a card."""

from nextpert.core._text import card, lines


def test_empty_facts_are_left_out():
    facts = {"Best": "MYC", "Failed": ""}
    assert lines("Campaign", facts, "table") == "Campaign\n  Best  MYC\ntable"
    assert "Failed" not in card("Campaign", facts)


def test_no_name_turns_the_direction_of_a_printed_line():
    assert "\u202e" not in lines("Campaign", {"Best": "MYC\u202e"})
