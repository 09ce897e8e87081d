// Publish on RabbitMQ: go get github.com/rabbitmq/amqp091-go
// go run rabbitmq.go amqp://user:password@localhost/vhost < message.json
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	message, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	connection, err := amqp.Dial(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		log.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(
		ctx, "", "mailgate.inbox", false, false,
		amqp.Publishing{
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         message,
		})
	if err != nil {
		log.Fatal(err)
	}
	if ok, err := confirmation.WaitContext(ctx); err != nil || !ok {
		log.Fatal("RabbitMQ did not confirm: ", err)
	}
	fmt.Println("confirmed by RabbitMQ")
}
