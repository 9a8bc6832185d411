from .source import export_source as export_source
