package main

import (
	"context"
	"errors"
	"slices"

	"github.com/segmentio/kafka-go"
	"weir/interop/shared"
)

func (c client) Administer(ctx context.Context, topic, group string) error {
	return errors.Join(c.topic(ctx, topic), c.group(ctx, topic, group))
}

func (c client) topic(ctx context.Context, topic string) error {
	hour := []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: "3600000", ConfigOperation: kafka.ConfigOperationSet}}
	altered, err := c.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, Configs: hour}},
	})
	if err != nil {
		return err
	}
	retention := func() (string, error) {
		described, err := c.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"retention.ms"}}},
		})
		if err != nil || len(described.Resources) != 1 || len(described.Resources[0].ConfigEntries) != 1 {
			return "", errors.Join(err, shared.Expect(err != nil, "settings", described))
		}
		return described.Resources[0].ConfigEntries[0].ConfigValue, described.Resources[0].Error
	}
	if err := shared.WaitForSetting(ctx, "3600000", retention); err != nil {
		return err
	}
	created, err := c.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 4}}})
	if err != nil {
		return err
	}
	return errors.Join(shared.WaitForPartitions(ctx, c, topic, 4), altered.Resources[0].Error, created.Errors[topic])
}

func (c client) group(ctx context.Context, topic, group string) error {
	listed, listErr := c.ListGroups(ctx, &kafka.ListGroupsRequest{})
	described, describeErr := c.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
	offsets, offsetsErr := c.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
	if err := errors.Join(listErr, describeErr, offsetsErr); err != nil {
		return err
	}
	isListed := slices.ContainsFunc(listed.Groups, func(each kafka.ListGroupsResponseGroup) bool { return each.GroupID == group })
	deleted, err := c.OffsetDelete(ctx, &kafka.OffsetDeleteRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
	if err != nil {
		return err
	}
	gone, err := c.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return err
	}
	return errors.Join(shared.Expect(isListed, "groups", listed), shared.Expect(described.Groups[0].GroupState == "Empty", "group", described.Groups),
		shared.Expect(offsets.Topics[topic][0].CommittedOffset == 40, "commits", offsets), deleted.Error, deleted.Topics[topic][0].Error, gone.Errors[group])
}
