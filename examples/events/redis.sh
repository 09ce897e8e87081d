#!/bin/sh
# Look at the newest events: sh redis.sh redis://localhost:6379/0 shop
# To wait for the next one instead: XREAD BLOCK 0 STREAMS mailgate:events:shop '$'
set -eu
redis-cli -u "$1" XREVRANGE "mailgate:events:$2" + - COUNT 10
