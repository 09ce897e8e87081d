// Publish on a Redis stream: go get github.com/redis/go-redis/v9
// go run redis.go redis://localhost:6379/0 < message.json
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/redis/go-redis/v9"
)

func main() {
	options, err := redis.ParseURL(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	message, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	entry, err := client.XAdd(context.Background(), &redis.XAddArgs{
		Stream: "mailgate:inbox",
		Values: map[string]any{"message": message},
	}).Result()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted by Redis as", entry)
}
