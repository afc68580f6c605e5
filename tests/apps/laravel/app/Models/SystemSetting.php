<?php

namespace App\Models;

class SystemSetting extends CompanyRecord
{
}
