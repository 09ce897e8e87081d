"""The page docs/states.md, from the table of transitions itself.

``python -m tests.unit.model.diagram > docs/states.md`` writes it.
"""

from __future__ import annotations

from mailgate.model.state import FINAL, RESENDABLE, TRANSITIONS, WAITING, State

MEANING = {
    State.QUEUED: "waits to be taken, once it is due",
    State.GATHERING: "an item that waits for its digest",
    State.SENDING: "a worker has claimed it and nobody else may send it",
    State.DEFERRED: "an attempt failed for now; tried again when due",
    State.SENT: "a relay has taken it (250 after the final dot)",
    State.BOUNCED: "the address does not take mail",
    State.FAILED: "it cannot be delivered, or the schedule gave up; the address is not to blame",
    State.UNCERTAIN: "perhaps delivered: no answer after the final dot, or a restored journal",
    State.EXPIRED: "its `expires_at` passed first",
    State.SUPPRESSED: "the address is on the suppression list",
    State.THROTTLED: "dropped by a throttle with `on_limit = drop`",
    State.DIGESTED: "went into a digest",
    State.CANCELLED: "an operator cancelled it",
    State.CAPTURED: "the sandbox kept it: no relay was touched",
    State.HELD: "waits for an operator or an author",
}


def page() -> str:
    lines = [
        "# States of a recipient",
        "",
        "Written by `python -m tests.unit.model.diagram` from the table in",
        "`mailgate/model/state.py`; a test compares them. Every other move is refused.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> queued",
        "    [*] --> gathering",
    ]
    for source in State:
        for target in State:
            if target in TRANSITIONS[source]:
                lines.append(f"    {source} --> {target}")
    lines += [f"    {state} --> [*]" for state in State if not TRANSITIONS[state]]
    lines += ["```", "", "| State | Means | Kind |", "|---|---|---|"]
    for state in State:
        kinds = [
            word
            for word, states in (
                ("waiting", WAITING),
                ("final", FINAL),
                ("can be sent again", RESENDABLE),
            )
            if state in states
        ]
        lines.append(f"| `{state}` | {MEANING[state]} | {', '.join(kinds)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
