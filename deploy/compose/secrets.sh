#!/bin/sh
# Makes the secrets of deploy/compose.yaml, each in a file; what is there stays as it is.
# The directory is yours alone. The files are readable by whoever sees them, which in a
# container is one user: Docker mounts single files as they are, owner and mode included.
set -eu
umask 022
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
cd secrets

word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# once FILE TEXT: no file that is there is written again, since the servers keep passwords.
once() { [ -e "$1" ] || printf '%s\n' "$2" >"$1"; }

broker=$(word) journal=$(word) limiter=$(word)
# Both ends of a password are made together, or neither.
if ! [ -e rabbitmq_conf ]; then
    once rabbitmq_conf "default_pass = $broker"
    rm -f broker_url
fi
once broker_url "amqp://mailgate:$broker@rabbitmq:5672/mailgate"
if ! [ -e postgres_password ]; then
    once postgres_password "$journal"
    rm -f journal_url
fi
once journal_url "postgresql+psycopg://mailgate:$journal@postgres/mailgate"
if ! [ -e valkey_conf ]; then
    once valkey_conf "requirepass $limiter
maxmemory-policy noeviction
appendonly yes
dir /data"
    rm -f limiter_url
fi
once limiter_url "redis://:$limiter@valkey:6379/0"
once flower_login "operator:$(word)"
once grafana_password "$(word)"
once relay_password "write the relay's password here"
echo "secrets are in $PWD; put the relay's password into relay_password"
