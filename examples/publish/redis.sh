#!/bin/sh
# Publish on Redis: sh redis.sh stream|list redis://localhost:6379/0 < message.json
# -x reads the message from standard input, so quotes and size are no concern.
set -eu
case $1 in
stream) redis-cli -u "$2" -x XADD mailgate:inbox '*' message ;;
list) redis-cli -u "$2" -x LPUSH mailgate:inbox:list ;;
esac
