"""The section of suppressions: what a bounce is held against an address for, and how long."""

from __future__ import annotations

from pydantic import Field

from mailgate.config.terms import Duration, Section


class Suppressions(Section):
    """Addresses that proved dead get no more mail for a while."""

    bounces: bool = Field(
        True, description="Whether bounces suppress addresses; false: only people do."
    )
    lasts: Duration = Field(
        90 * 86400.0,
        gt=0,
        description="How long an address is suppressed that does not exist, has moved or is "
        "disabled.",
    )
    full_after: int = Field(
        3, ge=0, description="Suppress at so many bounces of a full mailbox; 0: never."
    )
    full_lasts: Duration = Field(7 * 86400.0, gt=0, description="How long it is then suppressed.")
    refused_after: int = Field(
        2, ge=0, description="Suppress at so many refusals that give no reason; 0: never."
    )
    refused_lasts: Duration = Field(
        30 * 86400.0, gt=0, description="How long it is then suppressed."
    )
    apart: Duration = Field(
        86400.0, description="Bounces of one kind less than this apart count as one."
    )
    forget: Duration = Field(
        30 * 86400.0,
        gt=0,
        description="After so long without one they are counted anew; a mail that was taken "
        "forgets them at once.",
    )
