// The cases of sarama.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"weir/interop/shared"
)

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

// settings are sarama's defaults for the newest protocol that it speaks.
func settings() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Metadata.AllowAutoTopicCreation = false
	return config
}

type client struct {
	sarama.Client
	admin sarama.ClusterAdmin
}

func record(message *sarama.ConsumerMessage) shared.Record {
	found := shared.Record{
		Key: message.Key, Value: message.Value, Time: message.Timestamp.UnixMilli(), Partition: int(message.Partition), Offset: message.Offset,
	}
	for _, header := range message.Headers {
		found.Headers = append(found.Headers, shared.Header{Key: string(header.Key), Value: header.Value})
	}
	return found
}

func (c client) Create(_ context.Context, topic string, partitions int, config map[string]string) error {
	entries := map[string]*string{}
	for name, value := range config {
		entries[name] = &value
	}
	detail := &sarama.TopicDetail{NumPartitions: int32(partitions), ReplicationFactor: -1, ConfigEntries: entries}
	err := c.admin.CreateTopic(topic, detail, false)
	if errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return shared.ErrTopicExists
	}
	return err
}

func (c client) Delete(_ context.Context, topic string) error { return c.admin.DeleteTopic(topic) }

func (c client) Partitions(_ context.Context, topic string) (int, error) {
	topics, err := c.admin.ListTopics()
	return int(topics[topic].NumPartitions), err
}

type sender struct{ sarama.SyncProducer }

func (c client) Sender(codec string, idempotent bool) (shared.Sender, error) {
	config := settings()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Compression = codecs[codec]
	config.Producer.Partitioner = sarama.NewManualPartitioner
	if idempotent {
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1
	}
	made, err := sarama.NewSyncProducer(shared.Brokers(), config)
	return sender{made}, err
}

func encoder(bytes []byte) sarama.Encoder {
	if bytes == nil {
		return nil
	}
	return sarama.ByteEncoder(bytes)
}

func (s sender) Send(_ context.Context, topic string, records []shared.Record) error {
	sent := []*sarama.ProducerMessage{}
	for _, each := range records {
		message := &sarama.ProducerMessage{Topic: topic, Partition: int32(each.Partition), Key: encoder(each.Key), Value: encoder(each.Value)}
		for _, header := range each.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Key), Value: header.Value})
		}
		if each.Time != 0 {
			message.Timestamp = time.UnixMilli(each.Time)
		}
		sent = append(sent, message)
	}
	err := s.SendMessages(sent)
	if failures := (sarama.ProducerErrors)(nil); errors.As(err, &failures) {
		return fmt.Errorf("%w; the first: %w", err, failures[0].Err)
	}
	return err
}

type reader struct {
	sarama.Consumer
	partition sarama.PartitionConsumer
	topic     string
}

func (c client) Reader(_ context.Context, topic string, start int64) (shared.Reader, error) {
	config := settings()
	config.Consumer.Return.Errors = true
	consumer, err := sarama.NewConsumer(shared.Brokers(), config)
	if err != nil {
		return nil, err
	}
	made := &reader{consumer, nil, topic}
	return made, made.SeekTo(start)
}

func (r *reader) Read(ctx context.Context, count int) (found []shared.Record, err error) {
	for len(found) < count {
		select {
		case message := <-r.partition.Messages():
			found = append(found, record(message))
		case err := <-r.partition.Errors():
			return nil, err
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d records read", len(found), count)
		}
	}
	return found, nil
}

// SeekTo opens the partition once more: this client knows no other way.
func (r *reader) SeekTo(offset int64) error {
	if r.partition != nil {
		if err := r.partition.Close(); err != nil {
			return err
		}
	}
	var err error
	r.partition, err = r.ConsumePartition(r.topic, 0, offset)
	return err
}

func (r *reader) Close() error { return errors.Join(r.partition.Close(), r.Consumer.Close()) }

func (c client) Bounds(_ context.Context, topic string) (int64, int64, error) {
	first, firstErr := c.GetOffset(topic, 0, sarama.OffsetOldest)
	end, endErr := c.GetOffset(topic, 0, sarama.OffsetNewest)
	return first, end, errors.Join(firstErr, endErr)
}

func (c client) OffsetForTime(_ context.Context, topic string, milliseconds int64) (int64, error) {
	return c.GetOffset(topic, 0, milliseconds)
}

// handler is what sarama calls with each partition that the member has.
type handler struct{ handle func(shared.Record) bool }

func (handler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (h handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		if h.handle(record(message)) {
			session.MarkOffset(message.Topic, message.Partition, message.Offset+1, "")
		}
		if len(claim.Messages()) == 0 {
			session.Commit()
		}
	}
	return nil
}

func (c client) Consume(ctx context.Context, topic, group string, handle func(shared.Record) bool) error {
	config := settings()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	config.Consumer.Group.Rebalance.Retry.Backoff = 200 * time.Millisecond
	member, err := sarama.NewConsumerGroup(shared.Brokers(), group, config)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := member.Consume(ctx, []string{topic}, handler{handle}); err != nil && ctx.Err() == nil {
			return errors.Join(err, member.Close())
		}
	}
	return member.Close()
}

func main() {
	made, err := sarama.NewClient(shared.Brokers(), settings())
	if err != nil {
		panic(err)
	}
	admin, err := sarama.NewClusterAdminFromClient(made)
	if err != nil {
		panic(err)
	}
	shared.Main(shared.Suite{
		Name: "sarama", Client: client{made, admin}, Idempotence: true,
		Notes: map[string]string{"seek": "by opening the partition again at the offset: it has no seek"},
	})
}
