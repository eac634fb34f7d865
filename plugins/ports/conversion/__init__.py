"""From a checkpoint of another project to a pipeline folder, tensor by tensor."""
