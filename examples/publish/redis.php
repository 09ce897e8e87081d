<?php
// Publish on a Redis stream: composer require predis/predis
// php redis.php tcp://localhost:6379 < message.json
require 'vendor/autoload.php';

$message = json_decode(stream_get_contents(STDIN), flags: JSON_THROW_ON_ERROR);
$json = json_encode($message, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE);
$client = new Predis\Client($argv[1]);
$entry = $client->xadd('mailgate:inbox', ['message' => $json]);
echo "accepted by Redis as $entry\n";
