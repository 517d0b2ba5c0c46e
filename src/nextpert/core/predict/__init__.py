"""What a posterior says of means, distances and environments it has not seen."""
