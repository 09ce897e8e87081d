#!/bin/sh
# Publish on RabbitMQ: sh rabbitmq.sh amqp://user:password@localhost/vhost < message.json
# amqp-publish knows no confirms: fine for a trial, too little for mail that matters.
set -eu
amqp-publish --url="$1" --routing-key=mailgate.inbox --persistent \
    --content-type=application/json
