"""How relays word their refusals, by topic: alternatives of regular expressions.

Owns words only; ``rules`` says what follows from them. Every repetition is
bounded, because the relay writes the text that they run over.
"""

from __future__ import annotations


def _any(*phrases: str) -> str:
    return "|".join(phrases)


THROTTLED = _any(
    r"\brate\b.{0,20}(limit|exceed|control)",
    r"(limit|exceed)\w{0,6}.{0,40}\brate\b",
    r"unusual rate",
    r"throttl",
    r"too (many|much) (messages?|mails?|e-?mails?|requests?|attempts|traffic)",
    r"too many recipients? (this|per)",
    r"too (fast|quickly|frequent)|slow(er|ing)? down",
    r"(hourly|daily|sending|message|mail|per.(day|hour|minute)) (\w{1,20} )?(limit|quota)",
)
#: The bracketed code by which Yahoo and AOL say that an address or network is slowed.
YAHOO = r"\[(ip)?tss?\d{1,3}\]"
#: Amazon SES over its sending rate.
SES = r"throttling failure|maximum sending rate"

CONNECTIONS = _any(
    r"too many (\w{1,20} ){0,3}(connections?|sessions?)",
    r"(connections?|sessions?) (\w{1,20} ){0,3}limit",
    r"max\w{0,8} (\w{1,20} ){0,3}(connections|sessions)",
)

FULL = _any(
    r"(mailbox|mail box|inbox|quota|storage|account|disk).{0,40}\b(full|exceed|over)",
    r"over\W?quota",
    r"quota (is )?(full|reached|violation)",
    r"exceed\w{0,6}.{0,30}(quota|storage)",
    r"(insufficient|not enough|no) (disk |storage )?(space|storage)",
    r"no room\b",
)

GREYLISTED = _any(
    r"gr[ae]y.?list",
    r"first (contact|time)",
    r"not yet authorized",
)

_ADDRESSEE = (
    r"(user|mailbox|mail box|recipient|account|address|addressee|alias|person|customer|member|id)"
)
UNKNOWN = _any(
    # "user <ann@example.com> is unknown", "mailbox not found"
    _ADDRESSEE + r"s?\W{0,3}(\S{0,80}[@<]\S{1,80}\W{0,5})?(is |was |does |do |has )?"
    r"\b(unknown|not (found|exist|known|here|recogni[sz]ed|a valid)|n.t exist|does ?n.t exist"
    r"|invalid|unrouteable|undeliverable|non-?existent"
    r"|no longer (valid|exist|here|active|available|in use|on server))",
    # "no such user", "unknown local part"
    r"(unknown|no such|invalid|non-?existent|not a valid|unroutea?ble|not a known|bad|undefined"
    r"|unrecogni[sz]ed) (\w{1,20} )?(" + _ADDRESSEE + r"|local.?part|here|name)",
    r"no mailbox (here|by that name|found|with)",
    r"no (user|recipient|account|person)s? (\w{1,20} )?(here|found|by that|with (that|this))",
    r"not our customer|unknown to us|is not known (at|to) this",
)

DISABLED = (
    r"(user|mailbox|account|address|recipient|domain).{0,60}\b(disabled|inactive|suspended"
    r"|deactivated|closed|terminated|blocked due to inactivity|expired|not active|locked"
    r"|cancell?ed|removed|discontinued)\b"
)

MOVED = _any(
    r"(user|recipient|mailbox|address) (has )?moved",
    r"moved to (a )?new address",
)

NO_DOMAIN = _any(
    r"(host|domain)( name|s)?\W{0,3}(\S{1,80} )?(or domain name )?(not found|unknown|not known"
    r"|does ?n.t exist|does not exist|lookup fail|invalid)",
    r"(unknown|no such|invalid|nonexistent|bad destination) (\w{1,20} )?(host|domain)",
    r"no (valid )?(mx|a record|dns)",
    r"does not accept mail|null ?mx",
)

POLICY = _any(
    r"spam|unsolicited|\bbulk\b|phish|\bscore\b|complain|abuse",
    r"\bblocked\b|black.?list|block.?list|deny.?list|dnsbl|\brbl\b|listed (at|by|in|on)|bann",
    r"reputation|suspicious|prohibited|restricted",
    r"\bpolic(y|ies)\b|content|filter",
    r"\bspf\b|\bdkim\b|\bdmarc\b|authenticat",
    r"not (allowed|permitted|authori[sz]ed)|access denied|denied by",
)

#: It is our address, name or network that is not liked.
OURSELVES = _any(
    r"client host",
    r"your (ip|host|server|network|domain|mail ?server|isp)",
    r"\b(reverse|forward).{0,8}dns|\brdns\b|\bptr\b|cannot find your",
    r"\bhelo\b|\behlo\b",
    r"(ip|client|host) (address|name).{0,30}(reject|block|denied|not)",
    r"sender verif",
)

SENDER = _any(
    r"sender (address |domain |id |e-?mail )?(\S{0,80}@\S{0,80} )?(is |was )?"
    r"(rejected|refused|denied|unknown|not|blocked|invalid|verif|domain|address)",
    r"(invalid|unknown|bad) sender|domain of sender|sender not",
    r"(mail|envelope|header).?from|from (address|header|domain)",
    r"return.?path\b",
    r"not allowed to send|\bsend as\b",
)

UNAUTHENTICATED = r"\b(spf|dkim|dmarc|arc)\b|unauthenticated|sender authentication"

RELAYING = _any(
    r"rel[ae]y(ing)?\b.{0,20}(denied|not|prohibit|den|reject|restrict|refus)",
    r"(not|unable to|cannot|no) rel[ae]y|(do|does) not relay|relay access",
)

TOO_LARGE = _any(
    r"(message|mail|content|e-?mail|data|attachment)s?\b.{0,30}"
    r"(too (large|big|long)|exceed\w{0,6}.{0,40}size|size (exceed|limit))",
    r"exceed\w{0,6}.{0,40}(message|maximum|max|fixed) ?(message|mail)? ?size",
    r"too big",
)

LOOP = _any(
    r"too many hops|hop count|received headers",
    r"routing loop|mail(er)? loop|loops? (back|detected)",
)

VIRUS = r"virus|malware|infected|trojan|phish"

MALFORMED = _any(
    r"rfc.?\d{3,4}|non.?compliant|improperly",
    r"missing.{0,30}header|duplicate.{0,20}header",
    r"(header|message|syntax|format).{0,40}(invalid|malformed|improper|not compliant|error)",
    r"bare (lf|cr)|line too long",
)
