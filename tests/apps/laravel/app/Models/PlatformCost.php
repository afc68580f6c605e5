<?php

namespace App\Models;

class PlatformCost extends CompanyRecord
{
}
