"""Two readers of DKIM signatures that we did not write: dkimpy, and Perl's Mail::DKIM.

Owns how each is asked, in a process of its own with the DNS records in its hand.
Mail::DKIM of Debian 12 reads no Ed25519.
"""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Mapping, Sequence

Verdicts = list[list[list[str]]]

#: The distribution's dkimpy with the distribution's Python: on the index it has no wheel.
_DKIMPY = """
import base64, json, sys, dkim
said = json.load(sys.stdin)
records = {name.encode() + b".": text.encode() for name, text in said["records"].items()}
out = []
for content in map(base64.b64decode, said["mails"]):
    count = sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(content).headers)
    out.append([])
    for index in range(count):
        one = dkim.DKIM(content, minkey=1024)
        try:
            good = one.verify(idx=index, dnsfunc=lambda name, timeout=5: records.get(name))
        except dkim.DKIMException as error:
            good = False
            print(error, file=sys.stderr)
        out[-1].append([one.domain.decode(), one.selector.decode(), "pass" if good else "fail"])
print(json.dumps(out))
"""

_MAIL_DKIM = r"""
use strict; use warnings;
use JSON::PP; use MIME::Base64; use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS;
my $said = decode_json(join '', <STDIN>);
{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query = sub {
        my ($name, $type) = @_;
        my $text = $said->{records}{$name} or return ();
        return Net::DNS::RR->new(name => $name, type => 'TXT', txtdata => [$text =~ /(.{1,255})/g]);
    };
}
my @out;
for my $mail (@{$said->{mails}}) {
    my $verifier = Mail::DKIM::Verifier->new;
    $verifier->PRINT(decode_base64($mail));
    $verifier->CLOSE;
    push @out, [map { [$_->domain, $_->selector, $_->result] } $verifier->signatures];
}
print encode_json(\@out);
"""


def dkimpy(mails: Sequence[bytes], records: Mapping[str, str]) -> Verdicts:
    """For each mail (domain, selector, ``pass`` or else) of each signature, the top one first."""
    return _ask(["/usr/bin/python3", "-Wignore", "-c", _DKIMPY], mails, records)


def mail_dkim(mails: Sequence[bytes], records: Mapping[str, str]) -> Verdicts:
    """The same by Mail::DKIM."""
    return _ask(["perl", "-e", _MAIL_DKIM], mails, records)


def _ask(command: list[str], mails: Sequence[bytes], records: Mapping[str, str]) -> Verdicts:
    said = {"records": dict(records), "mails": [b64encode(mail).decode() for mail in mails]}
    done = subprocess.run(command, input=json.dumps(said).encode(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    found: Verdicts = json.loads(done.stdout)
    assert len(found) == len(mails)
    return found
