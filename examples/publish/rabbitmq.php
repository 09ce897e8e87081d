<?php
// Publish on RabbitMQ: composer require php-amqplib/php-amqplib
// php rabbitmq.php localhost 5672 user password vhost < message.json
require 'vendor/autoload.php';

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Message\AMQPMessage;

[, $host, $port, $user, $password, $vhost] = $argv;
$connection = new AMQPStreamConnection($host, $port, $user, $password, $vhost);
$channel = $connection->channel();
$channel->confirm_select();
$message = new AMQPMessage(stream_get_contents(STDIN), [
    'content_type' => 'application/json',
    'delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT,
]);
$channel->basic_publish($message, '', 'mailgate.inbox');
$channel->wait_for_pending_acks(5);
echo "confirmed by RabbitMQ\n";
$channel->close();
$connection->close();
