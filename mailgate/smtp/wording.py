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

#: This connection has carried its share; the next one may carry as many again.
SPENT = _any(
    r"(messages?|mails?|transactions?) (in|per|on|for|over) (a |an |each |one |the |this )?"
    r"(\w{1,10} )?(connection|session)",
)

FULL = _any(
    r"(mailbox|mail box|inbox|quota|storage|account|disk).{0,40}\b(full|exceed|over)",
    r"over\W?quota",
    r"quota (is )?(full|reached|violation)",
    r"exceed\w{0,6}.{0,30}(quota|storage)",
    r"(mailbox|mail box|inbox|account|user).{0,40}(insufficient|not enough|no) (disk |storage )?"
    r"(space|storage)",
    r"no room\b",
)
#: The relay's own disk, unless a mailbox is named.
NO_SPACE = r"\A(?!.{0,300}(mailbox|mail box|inbox|account|user)).{0,300}" + (
    r"(insufficient|not enough|no) (\w{1,20} )?(space|storage)"
)

GREYLISTED = _any(
    r"gr[ae]y.?list",
    r"first (contact|time)",
    r"not yet authorized",
)

#: RFC 5321 section 4.5.3.1.10 on 552, and those who say it in words.
RECIPIENTS = r"too many recip|too many rcpt|recipients? (\w{1,20} )?limit|max\w{0,8} recipients"

#: QQ and its company mail: for some minutes.
TENCENT = r"(connection|ip|mail) frequency limited"

#: The addressee does not want it, or not from us.
UNWANTED = _any(
    r"recipient.{0,3} preference",
    r"(rejected|refused|blocked|declined) by (the |this )?(recipient|user|addressee)\b",
    r"(user|recipient) (has )?(reject|block|decline)\w{0,3}\b(?! address)",
)

_ADDRESSEE = (
    r"(user|mailbox|mail box|recipient|account|address|addressee|alias|person|customer|member|id)"
)
UNKNOWN = _any(
    # "user <ann@example.com> is unknown", "mailbox not found"
    _ADDRESSEE + r"s?\W{0,3}([^\s@<]{0,80}[@<]\S{1,80}\W{0,5})?(is |was |does |do |has )?"
    r"\b(unknown|not (found|exist|known|here|recogni[sz]ed|a valid)|n.t exist|does ?n.t exist"
    r"|invalid|unrouteable|undeliverable|non-?existent"
    r"|no longer (valid|exist|here|active|available|in use|on server))",
    # "no such user", "unknown local part"
    r"(unknown|no such|invalid|non-?existent|not a valid|unroutea?ble|not a known|bad|undefined"
    r"|unrecogni[sz]ed) (\w{1,20} )?(" + _ADDRESSEE + r"|local.?part|here|name)",
    r"no mailbox (here|by that name|found|with)",
    r"no (user|recipient|account|person)s? (\w{1,20} )?(here|found|by that|with (that|this))",
    r"not our customer|unknown to us|is not known (at|to) this",
    # "This user doesn't have a yahoo.com account"
    r"(does ?n.t|does not) have an? (\S{1,80} ){0,2}(account|mailbox)",
    # "ann@example.com is no longer valid"
    r"\S@\S{1,80} (is |was )?(not a valid|no longer valid|unknown\b|not found|does not exist)",
    # As said in France, Germany, Spain and Italy.
    r"(destinataire|utilisateur)s? (est )?(inconnu|invalide|inexistant)",
    r"(empf\S{1,2}nger|benutzer|teilnehmer)\S{0,6} (ist )?(unbekannt|existiert nicht)",
    r"(usuario|destinatario|cuenta|buz\S{1,2}n) (es )?(desconocid|no existe|inexistente)",
    r"(utente|destinatario|casella) (\w{1,20} )?(sconosciut|inesistente)",
)

#: Microsoft 365, where the directory does not know the recipient.
MICROSOFT = r"recipient ?not ?found|recipient address rejected: access denied"

#: Named beside whatever else: our reputation was judged, not the address.
STANDING = _any(
    r"black.?list|block.?list|deny.?list|dnsbl|\brbl\b|spamhaus|barracuda|sorbs|spamcop|\bcbl\b",
    r"reputation|unsolicited|\bspam(ming|mer)?\b",
    r"(connection|access).{0,20}(blocked|banned)|\bbanned\b",
)

#: An IP address, whoever's it may be.
NETWORK = r"(?<![\d.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\d.]*\d)|\bip address\b"

#: The receiver's own trouble, under a code that ends the matter.
TROUBLE = _any(
    r"service (is )?(currently |temporarily )?(unavailable|not available|refused?)",
    r"transaction failed|temporar(y|ily)|try (again )?later",
    r"(internal|system|server|configuration|database|local|software) (\w{1,20} )?"
    r"(error|problem|failure)",
    r"lookup fail|timed? ?out|connection refused",
)

DISABLED = _any(
    r"(user|mailbox|account|address|recipient|domain).{0,60}\b(disabled|inactive|suspended"
    r"|deactivated|closed|terminated|blocked due to inactivity|expired|not active|locked"
    r"|cancell?ed|removed|discontinued|frozen)\b",
    r"(disabled|inactive|suspended|deactivated) (user|mailbox|account|address|recipient)",
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
    r"sender (address |domain |id |e-?mail )?([^\s@]{0,80}@\S{0,80} )?(is |was )?"
    r"(rejected|refused|denied|unknown|not|blocked|invalid|verif|domain|address)",
    r"(invalid|unknown|bad) sender|domain of sender|sender not",
    r"(mail|envelope|header).?from|from (address|header|domain)",
    r"return.?path\b",
    r"not allowed to send|\bsend as\b",
    r"\bfrom:|valid from\b",
    # Amazon SES before an identity is verified.
    r"address is not verified|identit(y|ies) failed the check",
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
    r"too big|\bline (length )?limit|line too long",
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
