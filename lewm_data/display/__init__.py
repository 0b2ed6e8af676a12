"""What people see of the commands on a terminal: findings by kind, advice, tables, progress. All of it on stderr."""

from lewm_data.display.progress import ConversionDisplay as ConversionDisplay
from lewm_data.display.progress import StagedProgress as StagedProgress
from lewm_data.display.progress import progress_bar as progress_bar
from lewm_data.display.progress import quiet_hub_bars as quiet_hub_bars
from lewm_data.display.tables import duration as duration
from lewm_data.display.tables import show_commands as show_commands
from lewm_data.display.tables import show_findings as show_findings
from lewm_data.display.tables import show_report as show_report
